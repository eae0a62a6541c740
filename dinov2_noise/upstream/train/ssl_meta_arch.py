"""``dinov2.train.ssl_meta_arch``: the frozen teacher and its loss, the restart at a switch, and today's FSDP.

Replaced: `SSLMetaArch`, by a subclass made of one part per concern. ``forward_backward`` stays upstream's: the
student's head runs once in it, so a forward hook sees the logits, and it calls ``backprop_loss`` once, so the anchor is
added there. Read against lines 34-400.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from dinov2_noise import xformers_ops
from dinov2_noise.upstream.signatures import expect_signature
from dinov2_noise.upstream.train.compiled import Compiled
from dinov2_noise.upstream.train.mended import Mended
from dinov2_noise.upstream.train.micro_batches import MicroBatches, ScaledBackward
from dinov2_noise.upstream.train.monitored import Monitored
from dinov2_noise.upstream.train.staged import Staged
from dinov2_noise.upstream.train.watched import Watched


@contextmanager
def surround() -> Iterator[None]:
    """Upstream asserts xFormers while it is imported: lend it the built-in operators for that moment only."""
    if xformers_ops.xformers_ops() is not None:
        yield
        return
    stand_ins = {"xformers": ModuleType("xformers"), "xformers.ops": xformers_ops}
    kept = {name: sys.modules.pop(name) for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


def attach(module: Any) -> None:
    upstream_class = module.SSLMetaArch
    expect_signature(upstream_class, "__init__", lambda self, cfg: None)
    expect_signature(upstream_class, "forward_backward", lambda self, images, teacher_temp: None)
    expect_signature(upstream_class, "backprop_loss", lambda self, loss: None)
    expect_signature(upstream_class, "update_teacher", lambda self, m: None)
    expect_signature(upstream_class, "fsdp_synchronize_streams", lambda self: None)
    expect_signature(upstream_class, "prepare_for_distributed_training", lambda self: None)

    parts = (Monitored, Watched, MicroBatches, Compiled, Staged, ScaledBackward, Mended)

    class SSLMetaArch(*parts, upstream_class):  # type: ignore[misc, valid-type]
        """Upstream's student and teacher, mended for today's PyTorch, with the stages and the anchor of a "
        "curriculum."""

    SSLMetaArch.__module__ = module.__name__
    SSLMetaArch.__qualname__ = "SSLMetaArch"
    module.SSLMetaArch = SSLMetaArch
