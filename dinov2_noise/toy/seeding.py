"""Every draw of the toy experiment comes from a generator of its own: (seed, what it is for, which part of the run)."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are for; the values decide the numbers, so they stay."""

    SPLIT = 0
    FIXED_NOISE = 1
    INIT = 2
    ORDER = 3
    VIEWS = 4
    NOISE = 5
    PROBE_INIT = 6
    PROBE_ORDER = 7
    PROBE_NOISE = 8
    CANVASES = 9


def generator(seed: int, stream: Stream, part: int = 0) -> torch.Generator:
    """A CPU generator whose seed depends on all three numbers.

    Args:
        seed: of the run, at least 0.
        stream: what the numbers are for.
        part: stage of a run, or split of the digits; at least 0.
    """
    mixed = np.random.SeedSequence([seed, int(stream), part]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))  # torch takes 63 bits without a sign
