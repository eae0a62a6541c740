"""What the seams of one process share: the run that upstream's `setup` has just configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from dinov2_noise.curriculum.config import CurriculumConfig
from dinov2_noise.curriculum.schedules import FloatArray, ScheduleSettings, StagedSchedules, staged_schedules
from dinov2_noise.curriculum.sections import HealthConfig, LoaderConfig, MonitorConfig, StepConfig
from dinov2_noise.curriculum.stages import Curriculum, Stage
from dinov2_noise.errors import PluginError


@dataclass
class Run:
    """A run with a curriculum.

    Attributes:
        cfg: upstream's merged config; upstream goes on changing it (it sets ``optim.lr``), so schedules are built
        when first asked for. config: our section ``curriculum``. curriculum: the same, in iterations. step, health,
        loader, monitor: our sections of these names. optimizer: upstream's, known once its checkpointer has been
        built. metrics: upstream's `MetricLogger` of the training, known once its loop begins. monitoring: of the
        model, once that is wrapped; None when it is off.
        first_iteration: where training begins, 0 unless it resumes. n_images: of the data set, once it is known;
        saved_n_images: in the checkpoint resumed from.
        pending_rng: after resuming, what the random generators continue with at the first step (see `upstream.rng`).
    """

    cfg: Any
    config: CurriculumConfig
    curriculum: Curriculum
    step: StepConfig = field(default_factory=StepConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    optimizer: torch.optim.Optimizer | None = None
    metrics: Any | None = None
    monitoring: Any | None = None
    first_iteration: int = 0
    n_images: int | None = None
    saved_n_images: int | None = None
    pending_rng: tuple[Mapping[str, Any] | None, int] | None = None
    _schedules_handed_out: int = field(default=0, init=False)

    @property
    def seed(self) -> int:
        return int(self.cfg.train.seed)

    @property
    def stages_with_teacher_files(self) -> list[Stage]:
        """Stages yet to begin that take their frozen teacher from a file; of those begun it is in the checkpoint."""
        return [
            stage
            for stage in self.curriculum.freezing_stages
            if stage.anchor is not None and stage.anchor.teacher and stage.first_iteration >= self.first_iteration
        ]

    @cached_property
    def schedules(self) -> StagedSchedules:
        return staged_schedules(ScheduleSettings.from_config(self.cfg), self.config)

    def next_schedule(self, asked: dict[str, Any]) -> FloatArray:
        """The staged form of the schedule that upstream's `build_schedulers` asks for.

        It asks for five in a fixed order; each request is compared with what that order means, so that another order
        is an error.

        Raises:
            PluginError: upstream asks for something else than expected.
        """
        name, expected = self._expected()[self._schedules_handed_out % 5]
        differing = {key for key in {*asked, *expected} if asked.get(key) != expected.get(key)}
        if differing:
            raise PluginError(
                f"upstream's build_schedulers asks for another {name} schedule than dinov2-noise was written for: "
                f"found {asked}, written for {expected}"
            )
        self._schedules_handed_out += 1
        schedule: FloatArray = getattr(self.schedules, name)
        return np.array(schedule)

    def _expected(self) -> list[tuple[str, dict[str, Any]]]:
        cfg, length = self.cfg, self.cfg.train.OFFICIAL_EPOCH_LENGTH
        total = cfg.optim.epochs * length
        learning_rate = {
            "base_value": cfg.optim.lr,
            "final_value": cfg.optim.min_lr,
            "total_iters": total,
            "warmup_iters": cfg.optim.warmup_epochs * length,
            "start_warmup_value": 0,
        }
        weight_decay = {
            "base_value": cfg.optim.weight_decay,
            "final_value": cfg.optim.weight_decay_end,
            "total_iters": total,
        }
        momentum = {
            "base_value": cfg.teacher.momentum_teacher,
            "final_value": cfg.teacher.final_momentum_teacher,
            "total_iters": total,
        }
        warmup = cfg.teacher.warmup_teacher_temp_epochs * length
        teacher_temp = {
            "base_value": cfg.teacher.teacher_temp,
            "final_value": cfg.teacher.teacher_temp,
            "total_iters": warmup,
            "warmup_iters": warmup,
            "start_warmup_value": cfg.teacher.warmup_teacher_temp,
        }
        return [
            ("lr", learning_rate),
            ("weight_decay", weight_decay),
            ("momentum", momentum),
            ("teacher_temp", teacher_temp),
            ("last_layer_lr", learning_rate),
        ]


UPSTREAMS_LOADER = LoaderConfig(augmentation="upstream")
_current: Run | None = None
_loader = UPSTREAMS_LOADER


def start(run: Run | None, loader: LoaderConfig = UPSTREAMS_LOADER) -> None:
    """Make ``run`` the one that the seams serve; None for a config without a curriculum, maybe with a ``loader``."""
    global _current, _loader
    _current = run
    _loader = loader if run is None else run.loader


def current() -> Run | None:
    """The run of this process, or None when upstream runs as it is."""
    return _current


def loader() -> LoaderConfig:
    """How images are made ready in this process."""
    return _loader
