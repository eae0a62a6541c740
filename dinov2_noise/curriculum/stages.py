"""Stages of a run as a pure function of the iteration.

Sources: the noise curriculum of "Ditch the Denoiser", arXiv 2505.12191 (paper A), and the frequency curriculum of
"FastDINOv2", arXiv 2507.03779 (paper B). Departure: the published codes run one job per stage.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from dinov2_noise.augment.patches import BlurPatch, GaussianPatch
from dinov2_noise.augment.views import LowPass
from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig
from dinov2_noise.curriculum.frequency import (
    UPSTREAMS_CROPS,
    BlurPatchConfig,
    Crops,
    GaussianPatchConfig,
    LowPassConfig,
)
from dinov2_noise.curriculum.ramps import on_line


@dataclass(frozen=True)
class Stage:
    """Iterations ``first_iteration`` to ``first_iteration + n_iterations - 1`` of a run, on one view of the images.

    ``noisy_share``: share of the samples that show the noisy image, at the first and the last iteration. ``crops``:
    their sizes, whether the stage sets them or the config does.
    """

    index: int
    name: str
    first_iteration: int
    n_iterations: int
    noisy_share: tuple[float, float]
    teacher_view: str
    anchor: AnchorConfig | None
    restart: bool
    crops: Crops = UPSTREAMS_CROPS
    low_pass: LowPassConfig | None = None
    gaussian_patch: GaussianPatchConfig | None = None
    blur_patch: BlurPatchConfig | None = None

    @property
    def view(self) -> str:
        """``noisy``, ``denoised``, or ``mixed``."""
        return {(1.0, 1.0): "noisy", (0.0, 0.0): "denoised"}.get(self.noisy_share, "mixed")

    @property
    def needs_twin(self) -> bool:
        """Whether the denoised twin of each sample is wanted too."""
        return self.anchor is not None or self.teacher_view == "denoised"

    def progress_at(self, iteration: int) -> float:
        """0 at the stage's first iteration and before, 1 at its last and after: loaders prefetch past a run's end."""
        return min(max((iteration - self.first_iteration) / max(self.n_iterations - 1, 1), 0.0), 1.0)

    def noisy_share_at(self, iteration: int) -> float:
        """Share of the samples that show the noisy image, on the line between the stage's ends."""
        return on_line(self.noisy_share, self.progress_at(iteration))

    def low_pass_at(self, iteration: int) -> LowPass | None:
        """The filter of all finished crops; None without one."""
        if self.low_pass is None:
            return None
        cutoff = on_line(self.low_pass.cutoff_cycles_per_px, self.progress_at(iteration))
        return LowPass(cutoff, self.low_pass.kind, self.low_pass.order)

    def patches_at(self, iteration: int) -> tuple[GaussianPatch | BlurPatch, ...]:
        """What is done to random squares of the student's image, in this order; empty for nothing."""
        progress = self.progress_at(iteration)
        found: list[GaussianPatch | BlurPatch] = []
        if self.gaussian_patch is not None:
            found.append(GaussianPatch(on_line(self.gaussian_patch.max_sigma, progress)))
        if self.blur_patch is not None:
            found.append(BlurPatch(on_line(self.blur_patch.max_sigma_px, progress)))
        return tuple(found)

    def anchor_weight_at(self, iteration: int) -> float:
        """The anchor's weight: constant, on a line, or on half a cosine from ``weight`` to ``final_weight``."""
        if self.anchor is None:
            return 0.0
        first, last = self.anchor.weight, self.anchor.final_weight
        if last is None:
            return first
        progress = self.progress_at(iteration)
        if self.anchor.weight_schedule == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return first + (last - first) * progress


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
        return any(stage.view != "noisy" or stage.needs_twin for stage in self.stages)

    @property
    def freezing_stages(self) -> list[Stage]:
        """Stages that begin with a new frozen teacher; consecutive anchored stages keep one, unless they name different
        files.
        """
        found = []
        for stage in self.stages:
            before = self.stages[stage.index - 1].anchor if stage.index > 0 else None
            if stage.anchor is not None and (before is None or before.teacher != stage.anchor.teacher):
                found.append(stage)
        return found

    def anchored_to(self, freezing: Stage) -> list[Stage]:
        """The stages that use the teacher frozen when ``freezing`` begins."""
        found = [freezing]
        for stage in self.stages[freezing.index + 1 :]:
            if stage.anchor is None or stage in self.freezing_stages:
                break
            found.append(stage)
        return found

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


def build(config: CurriculumConfig, epoch_length_iterations: int, crops: Crops = UPSTREAMS_CROPS) -> Curriculum:
    """The stages of ``config`` in iterations.

    Args:
        config: checked by `dinov2_noise.curriculum.config.parse_curriculum`.
        epoch_length_iterations: ``train.OFFICIAL_EPOCH_LENGTH``.
        crops: of the whole config, see `Crops.from_config`; a stage's own come before them.

    Raises:
        ValueError: ``epoch_length_iterations`` is less than 1.
    """
    if epoch_length_iterations < 1:
        raise ValueError(f"train.OFFICIAL_EPOCH_LENGTH is {epoch_length_iterations}: an epoch has at least 1 iteration")
    stages: list[Stage] = []
    first_iteration = 0
    for index, stage in enumerate(config.stages):
        n_iterations = stage.epochs * epoch_length_iterations
        stages.append(
            Stage(
                index=index,
                name=stage.name,
                first_iteration=first_iteration,
                n_iterations=n_iterations,
                noisy_share=stage.noisy_share,
                teacher_view=stage.teacher_view,
                anchor=stage.anchor,
                restart=stage.restart,
                crops=crops.of_stage(stage.crops),
                low_pass=stage.low_pass,
                gaussian_patch=stage.gaussian_patch,
                blur_patch=stage.blur_patch,
            )
        )
        first_iteration += n_iterations
    return Curriculum(tuple(stages), epoch_length_iterations)
