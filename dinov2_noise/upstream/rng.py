"""The global random generators of each process, kept in checkpoints: upstream's drop path draws from them.

Stored as tensors and plain numbers, which `torch.load` trusts. Restored at the first step after resuming, not before,
because the data loader draws a number when it starts.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from dinov2_noise.upstream import runtime

logger = logging.getLogger("dinov2")

# Tells these streams from the sampler's and the augmentation's, which are spawned from the same seed.
_RESUMING = 0x2E5


class Pending(NamedTuple):
    """What the next step begins with: a state of `capture`, or a seed where the checkpoint has none that fits."""

    state: Mapping[str, Any] | None
    seed: int


def capture() -> dict[str, Any]:
    """The present state of this process's generators: Python, NumPy, torch on the CPU and on its current GPU."""
    version, words, gauss = random.getstate()
    _, numpy_words, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the global one is meant
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(numpy_words).astype(np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore(state: Mapping[str, Any]) -> None:
    """Put this process's generators back to a state of `capture`; a GPU's is left out where there is none."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    numpy_words, *rest = state["numpy"]
    np.random.set_state(("MT19937", numpy_words.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def gather() -> list[dict[str, Any]]:
    """The states of all ranks, in their order, on every rank; a collective operation."""
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, capture())
    return states


def plan(saved: list[Mapping[str, Any]] | None, run: runtime.Run, iteration: int) -> Pending:
    """What this rank's generators continue with at ``iteration``.

    ``saved``: the states of all ranks in the checkpoint; None in those of earlier versions.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    key = (_RESUMING, iteration, rank)
    seed = int(np.random.SeedSequence(run.seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    if saved is not None and len(saved) == world_size:
        return Pending(saved[rank], seed)
    reason = "holds no random state" if saved is None else f"holds the random state of {len(saved)} processes"
    logger.info(
        "dinov2-noise: the checkpoint %s, this run has %d: each is seeded from the run's seed, the iteration and its "
        "rank; drop path then differs from an uninterrupted run's",
        reason,
        world_size,
    )
    return Pending(None, seed)


def restore_pending(run: runtime.Run | None) -> None:
    """At the first step after resuming, continue as planned."""
    if run is None or run.pending_rng is None:
        return
    state, seed = run.pending_rng
    if state is not None and (state["cuda"] is not None or not torch.cuda.is_available()):
        restore(state)
    else:
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 - the global one is meant
        torch.manual_seed(seed)
    run.pending_rng = None
