"""The sampler: which image, in which stage, at which place of the run.

The stage travels with the index because loader workers hold a copy of the dataset that no later call reaches: the
published code sets the epoch on the dataset after its workers have started, where it has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from dinov2_noise.augment.views import sample_seed
from dinov2_noise.curriculum.stages import Curriculum, Stage

# Tells the shuffling streams from those that seed the augmentation of sample number n, which have a one-word key.
_SHUFFLING = 0x5A1E
# See `sample_seed`.
_VIEW = 2


class Draw(NamedTuple):
    """What the sampler hands to a dataset in place of an index.

    ``index``: image; ``stage``: index of the stage; ``number``: place in the run over all ranks, unique, the seed of
    the augmentation; ``view``: which of the two images the student sees, ``noisy`` or ``denoised``; ``iteration``: of
    the run, where ramps within a stage are read; ``epoch``: how often the whole set has been drawn before, which fresh
    noise depends on (not the schedules' epoch, whose length is a setting).
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a draw
    stage: int
    number: int
    view: str
    iteration: int
    epoch: int = 0


class CurriculumSampler(Sampler[Draw]):
    """An endless, resumable shuffle of ``sample_count`` images over all ranks.

    At iteration i, position b of the batch of rank r has number n = (i * world_size + r) * batch_size + b, and is image
    permutation_e[o] with (e, o) = divmod(n, sample_count). So each image comes once per pass over the data, ranks never
    share one within a pass, R ranks together see what one rank with R times the batch sees, and the draws from
    iteration i on are the same whether the run started at i or came there. Memory: one permutation, 8 bytes per image.

    Args:
        sample_count: images in the dataset.
        batch_size: images per iteration and rank; the loader must use the same.
        curriculum: the run's stages.
        seed: of the shuffle, at least 0.
        start_iteration: where a resumed run goes on.
        rank, world_size: of this process, among how many.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        sample_count: int,
        batch_size: int,
        curriculum: Curriculum,
        seed: int,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value, least in (
            ("sample_count", sample_count, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("start_iteration", start_iteration, 0),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}: it must be at least {least}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}: with world_size {world_size} it lies between 0 and {world_size - 1}")
        self._sample_count = sample_count
        self._batch_size = batch_size
        self._curriculum = curriculum
        self._seed = seed
        self._start_iteration = start_iteration
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[Draw]:
        data_epoch, permutation = -1, torch.empty(0, dtype=torch.int64)
        iteration = self._start_iteration
        while True:
            stage = self._curriculum.stage_at(iteration)
            first = (iteration * self._world_size + self._rank) * self._batch_size
            for number in range(first, first + self._batch_size):
                epoch, offset = divmod(number, self._sample_count)
                if epoch != data_epoch:
                    data_epoch, permutation = epoch, self._permutation(epoch)
                view = self._view(stage, iteration, number)
                yield Draw(int(permutation[offset]), stage.index, number, view, iteration, epoch)
            iteration += 1

    def _view(self, stage: Stage, iteration: int, number: int) -> str:
        if stage.view != "mixed":
            return stage.view
        uniform = sample_seed(self._seed, number, stream=_VIEW) / 2**63
        return "noisy" if uniform < stage.noisy_share_at(iteration) else "denoised"

    def _permutation(self, data_epoch: int) -> torch.Tensor:
        mixed = np.random.SeedSequence(self._seed, spawn_key=(_SHUFFLING, data_epoch))
        generator = torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        return torch.randperm(self._sample_count, generator=generator)
