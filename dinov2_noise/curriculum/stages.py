"""Stages of a run as a pure function of the iteration.

Source: the noise curriculum of "Ditch the Denoiser", arXiv 2505.12191 (paper A). Departure: the published code runs one
job per stage.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig


@dataclass(frozen=True)
class Stage:
    """Iterations ``first_iteration`` to ``first_iteration + n_iterations - 1`` of a run, on one view of the images."""

    index: int
    name: str
    first_iteration: int
    n_iterations: int
    view: str
    anchor: AnchorConfig | None
    restart: bool

    @property
    def needs_twin(self) -> bool:
        """Whether the denoised twin of each noisy image is wanted too."""
        return self.anchor is not None


@dataclass(frozen=True)
class Curriculum:
    """The stages of a run, in order and without gaps.

    Raises:
        ValueError: no stages, or they do not follow each other from iteration 0 on.
    """

    stages: tuple[Stage, ...]
    epoch_length_iterations: int

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a curriculum has at least one stage")
        expected = 0
        for index, stage in enumerate(self.stages):
            if (stage.index, stage.first_iteration) != (index, expected) or stage.n_iterations < 1:
                raise ValueError(
                    f"stage {stage} does not follow its predecessor, which ends before iteration {expected}"
                )
            expected += stage.n_iterations

    @cached_property
    def _first_iterations(self) -> list[int]:
        return [stage.first_iteration for stage in self.stages]

    @property
    def total_iterations(self) -> int:
        """Length of the run."""
        return self.stages[-1].first_iteration + self.stages[-1].n_iterations

    @property
    def needs_denoised(self) -> bool:
        """Whether any stage reads denoised images, as its view or as twins."""
        return any(stage.view == "denoised" or stage.needs_twin for stage in self.stages)

    @property
    def segments(self) -> list[list[Stage]]:
        """Consecutive stages that share one set of schedules: the first stage and every restart begin a new one."""
        segments: list[list[Stage]] = []
        for stage in self.stages:
            if stage.index == 0 or stage.restart:
                segments.append([])
            segments[-1].append(stage)
        return segments

    def stage_at(self, iteration: int) -> Stage:
        """The stage of an iteration, counted from 0; loaders prefetch, so iterations past the end belong to the last
        stage.

        Raises:
            ValueError: ``iteration`` is negative.
        """
        if iteration < 0:
            raise ValueError(f"iteration {iteration} is negative: iterations count from 0")
        return self.stages[bisect_right(self._first_iterations, iteration) - 1]


def build(config: CurriculumConfig, epoch_length_iterations: int) -> Curriculum:
    """The stages of ``config`` in iterations.

    Args:
        config: checked by `dinov2_noise.curriculum.config.parse_curriculum`.
        epoch_length_iterations: ``train.OFFICIAL_EPOCH_LENGTH``.

    Raises:
        ValueError: ``epoch_length_iterations`` is less than 1.
    """
    if epoch_length_iterations < 1:
        raise ValueError(f"train.OFFICIAL_EPOCH_LENGTH is {epoch_length_iterations}: an epoch has at least 1 iteration")
    stages: list[Stage] = []
    first_iteration = 0
    for index, stage in enumerate(config.stages):
        n_iterations = stage.epochs * epoch_length_iterations
        stages.append(Stage(index, stage.name, first_iteration, n_iterations, stage.view, stage.anchor, stage.restart))
        first_iteration += n_iterations
    return Curriculum(tuple(stages), epoch_length_iterations)
