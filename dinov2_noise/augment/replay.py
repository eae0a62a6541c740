"""Random draws under control: seed them for one image, and play the same ones to its twin.

torchvision's and upstream's transforms draw from the global generators of Python, torch and NumPy, so these are what is
seeded, for the duration of a block only. CUDA's generators are left alone: augmentation runs on the CPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

Input = TypeVar("Input")
Output = TypeVar("Output")


class RngState(NamedTuple):
    """State of the three global CPU generators."""

    python: tuple[Any, ...]
    numpy: Any
    torch: torch.Tensor


def capture() -> RngState:
    """The present state of the global CPU generators of Python, NumPy and torch."""
    return RngState(random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002 - the global one is meant


def replay(state: RngState) -> None:
    """Put the generators back to ``state``: the draws that followed `capture` follow again."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)  # noqa: NPY002 - the global one is meant
    torch.set_rng_state(state.torch)


@contextmanager
def rng_scope(seed: int) -> Iterator[None]:
    """Seed the global CPU generators for the block, and restore them after it, whatever happens.

    Args:
        seed: 0 … 2^64 - 1, well mixed in its low 32 bits too, such as from `dinov2_noise.augment.views.sample_seed`.
    """
    before = capture()
    try:
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 - the global one is meant
        # Not torch.manual_seed, which seeds CUDA's generators too, and those are not restored. torch's CPU generator
        # uses the low 32 bits only: among millions of samples a few share its stream, for different images.
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        replay(before)


def paired(transform: Callable[[Input], Output], first: Input, second: Input) -> tuple[Output, Output]:
    """Apply a random transform to two images with the same draws.

    Afterwards the generators stand where one application, to ``first``, leaves them. The draws are the same only as far
    as the transform asks for the same ones: a random crop looks at the image's size, so both images must have the same.
    """
    before = capture()
    first_output = transform(first)
    after = capture()
    replay(before)
    try:
        second_output = transform(second)
    finally:
        replay(after)
    return first_output, second_output
