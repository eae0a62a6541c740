"""``dinov2.layers.attention``: the built-in operators where xFormers cannot be used.

Replaced: the names ``memory_efficient_attention`` and ``unbind``, and ``XFORMERS_AVAILABLE`` set to True, without
which `MemEffAttention` refuses packed sequences. Read against lines 22-36 and 81-99.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinov2_noise import xformers_ops
from dinov2_noise.upstream.signatures import expect_signature


@contextmanager
def surround() -> Iterator[None]:
    """Keep upstream's "xFormers is not available" back: it is about to be untrue."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="xFormers is")
        yield


def attach(module: Any) -> None:
    expect_signature(module.MemEffAttention, "forward", lambda self, x, attn_bias=None: None)
    if xformers_ops.xformers_ops() is not None:
        return
    module.memory_efficient_attention = xformers_ops.memory_efficient_attention
    module.unbind = xformers_ops.unbind
    module.fmha = xformers_ops.fmha  # the wheel's version names a kernel of it
    module.XFORMERS_AVAILABLE = True
