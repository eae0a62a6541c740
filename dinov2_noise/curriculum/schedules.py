"""The five schedules of DINOv2 over a run of several stages, as arrays.

Per segment (see `dinov2_noise.curriculum.stages.Curriculum.segments`) each schedule is the one upstream would build for
a run of ``schedule_epochs``, cut to the segment's length; a restart begins the next one at 0. One stage without extras
gives upstream's schedules.

Source: the restart of "Ditch the Denoiser", arXiv 2505.12191 (paper A), and the schedule formulas of DINOv2, arXiv
2304.07193.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dinov2_noise.curriculum.config import CurriculumConfig, StageConfig
from dinov2_noise.curriculum.stages import build
from dinov2_noise.errors import ConfigError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScheduleSettings:
    """What decides the schedules: upstream's ``optim.*``, ``teacher.*`` and ``train.OFFICIAL_EPOCH_LENGTH``.

    ``lr`` is the peak after the scaling rule, ``base_lr`` the one before it.
    """

    base_lr: float
    lr: float
    min_lr: float
    warmup_epochs: int
    weight_decay: float
    weight_decay_end: float
    freeze_last_layer_epochs: int
    momentum_teacher: float
    final_momentum_teacher: float
    teacher_temp: float
    warmup_teacher_temp: float
    warmup_teacher_temp_epochs: int
    epochs: int
    epoch_length_iterations: int

    @classmethod
    def from_config(cls, cfg: Any) -> ScheduleSettings:
        """The settings in upstream's merged config, after its scaling rule has set ``optim.lr``."""
        optim, teacher = cfg.optim, cfg.teacher
        return cls(
            base_lr=optim.base_lr,
            lr=optim.lr,
            min_lr=optim.min_lr,
            warmup_epochs=optim.warmup_epochs,
            weight_decay=optim.weight_decay,
            weight_decay_end=optim.weight_decay_end,
            freeze_last_layer_epochs=optim.freeze_last_layer_epochs,
            momentum_teacher=teacher.momentum_teacher,
            final_momentum_teacher=teacher.final_momentum_teacher,
            teacher_temp=teacher.teacher_temp,
            warmup_teacher_temp=teacher.warmup_teacher_temp,
            warmup_teacher_temp_epochs=teacher.warmup_teacher_temp_epochs,
            epochs=optim.epochs,
            epoch_length_iterations=cfg.train.OFFICIAL_EPOCH_LENGTH,
        )

    def for_stage(self, stage: StageConfig) -> ScheduleSettings:
        """These settings with the overrides of a stage.

        Raises:
            ConfigError: the stage overrides ``base_lr``, but the run's own is 0, so that the scaling rule's factor is
                unknown.
        """
        parts = (stage.overrides.optim, stage.overrides.teacher)
        changes = {entry.name: getattr(part, entry.name) for part in parts for entry in fields(part)}
        changes = {name: value for name, value in changes.items() if value is not None}
        if "base_lr" in changes:
            if self.base_lr == 0:
                raise ConfigError(
                    f"stage {stage.name!r} overrides optim.base_lr, but optim.base_lr itself is 0: set it too"
                )
            changes["lr"] = self.lr * (changes["base_lr"] / self.base_lr)
        return replace(self, **changes)


@dataclass(frozen=True)
class StagedSchedules:
    """The schedules of a whole run, float64, one value per iteration: arrays of shape (total_iterations,)."""

    lr: FloatArray
    weight_decay: FloatArray
    momentum: FloatArray
    teacher_temp: FloatArray
    last_layer_lr: FloatArray


def cosine(
    base: float,
    final: float,
    total_iterations: int,
    warmup_iterations: int = 0,
    start_warmup: float = 0.0,
    freeze_iterations: int = 0,
) -> FloatArray:
    """Zeros, then a line from ``start_warmup`` to ``base`` (both reached), then half a cosine from ``base`` towards
    ``final``:

        value(t) = final + (base - final) * (1 + cos(pi * t / T)) / 2,  t = 0 … T - 1

    with T what the freeze and the warm-up leave of ``total_iterations``; ``final`` itself would come at t = T, after
    the end.

    Returns:
        shape (total_iterations,).

    Raises:
        ValueError: freeze and warm-up are longer than the whole.
    """
    decay_iterations = total_iterations - warmup_iterations - freeze_iterations
    if decay_iterations < 0:
        raise ValueError(
            f"{freeze_iterations} + {warmup_iterations} iterations of freeze and warm-up exceed {total_iterations}"
        )
    warmup = np.linspace(start_warmup, base, warmup_iterations)
    # multiplied before it is divided: the order decides the last bit, and with it equality with upstream
    angle = np.pi * np.arange(decay_iterations) / max(decay_iterations, 1)
    decay = final + 0.5 * (base - final) * (1 + np.cos(angle))
    return np.concatenate((np.zeros(freeze_iterations), warmup, decay))


def staged_schedules(settings: ScheduleSettings, config: CurriculumConfig) -> StagedSchedules:
    """The schedules of the run that ``config`` describes.

    Raises:
        ConfigError: the stages do not sum to ``settings.epochs``, or a warm-up is longer than the schedule it belongs
            to.
    """
    curriculum = build(config, settings.epoch_length_iterations)
    if curriculum.total_iterations != settings.epochs * settings.epoch_length_iterations:
        epochs = sum(stage.epochs for stage in config.stages)
        raise ConfigError(
            f"the epochs of the stages sum to {epochs}, but optim.epochs is {settings.epochs}: make them equal"
        )
    pieces = []
    for segment in curriculum.segments:
        first = config.stages[segment[0].index]
        covered_epochs = sum(config.stages[stage.index].epochs for stage in segment)
        schedule_epochs = covered_epochs if first.schedule_epochs is None else first.schedule_epochs
        own = settings.for_stage(first)
        if own.freeze_last_layer_epochs > covered_epochs:
            raise ConfigError(
                f"stage {first.name!r}: the last layer is frozen for {own.freeze_last_layer_epochs} epochs, but only "
                f"{covered_epochs} pass before the next restart or the end: lower freeze_last_layer_epochs"
            )
        pieces.append(_segment(own, first.name, schedule_epochs, covered_epochs))
    names = [entry.name for entry in fields(StagedSchedules)]
    return StagedSchedules(**{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in names})


def _segment(settings: ScheduleSettings, name: str, schedule_epochs: int, covered_epochs: int) -> StagedSchedules:
    if settings.warmup_epochs > schedule_epochs:
        raise ConfigError(
            f"stage {name!r}: optim.warmup_epochs is {settings.warmup_epochs}, longer than the schedule of "
            f"{schedule_epochs} epochs it belongs to. Shorten it (a stage may by "
            "overrides.optim.warmup_epochs), or set schedule_epochs."
        )
    epoch = settings.epoch_length_iterations
    total, covered = schedule_epochs * epoch, covered_epochs * epoch
    lr = cosine(settings.lr, settings.min_lr, total, settings.warmup_epochs * epoch)
    last_layer_lr = lr.copy()
    last_layer_lr[: settings.freeze_last_layer_epochs * epoch] = 0.0
    return StagedSchedules(
        lr=lr[:covered],
        weight_decay=cosine(settings.weight_decay, settings.weight_decay_end, total)[:covered],
        momentum=cosine(settings.momentum_teacher, settings.final_momentum_teacher, total)[:covered],
        teacher_temp=_teacher_temp(settings, covered),
        last_layer_lr=last_layer_lr[:covered],
    )


def _teacher_temp(settings: ScheduleSettings, n_iterations: int) -> FloatArray:
    """A line over the warm-up, then constant; a warm-up longer than the schedule is cut, as upstream does."""
    warmup_iterations = settings.warmup_teacher_temp_epochs * settings.epoch_length_iterations
    warmup = np.linspace(settings.warmup_teacher_temp, settings.teacher_temp, warmup_iterations)
    rest = np.full(max(n_iterations - warmup_iterations, 0), settings.teacher_temp, dtype=np.float64)
    return np.concatenate((warmup, rest))[:n_iterations]
