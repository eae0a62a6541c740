"""``dinov2.layers.attention``: the built-in operators where xFormers cannot be used.

Replaced: the names ``memory_efficient_attention`` and ``unbind``, and ``XFORMERS_AVAILABLE`` set to True, without
which `MemEffAttention` refuses packed sequences. Read against lines 22-36 and 81-99.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dinov2_noise import xformers_ops
from dinov2_noise.upstream.signatures import expect_signature


@contextmanager
def surround() -> Iterator[None]:
    """Keep upstream's "xFormers is not available" back: it is about to be untrue. The wheel logs it, as a warning."""
    logger, is_another = logging.getLogger("dinov2"), _filter()
    logger.addFilter(is_another)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="xFormers is")
            yield
    finally:
        logger.removeFilter(is_another)


def _filter() -> Callable[[logging.LogRecord], bool]:
    """A new one each time: one module of these is imported by another, and each takes away its own."""
    return lambda record: record.getMessage() != "xFormers not available"


def attach(module: Any) -> None:
    expect_signature(module.MemEffAttention, "forward", lambda self, x, attn_bias=None: None)
    if xformers_ops.xformers_ops() is not None:
        return
    module.memory_efficient_attention = xformers_ops.memory_efficient_attention
    module.unbind = xformers_ops.unbind
    module.fmha = xformers_ops.fmha  # the wheel's version names a kernel of it
    module.XFORMERS_AVAILABLE = True
