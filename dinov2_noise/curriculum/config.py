"""The config section ``curriculum:`` as typed, frozen dataclasses, and the checks that make it one possible run.

Source: "Ditch the Denoiser: Emergence of Noise Robustness in Self-Supervised Learning from Data Curriculum", arXiv
2505.12191 (paper A): stages, restart, anchor and their published values. Departure: one config describes the whole run,
instead of one job per stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig

from dinov2_noise.curriculum.frequency import (
    BlurPatchConfig,
    CropsConfig,
    GaussianPatchConfig,
    LowPassConfig,
    check_images,
)
from dinov2_noise.curriculum.ramps import Ramp, check_pair, ends
from dinov2_noise.curriculum.strict import build_strict, choose, plain
from dinov2_noise.errors import ConfigError

VIEWS = ("noisy", "denoised")
HEADS = ("ema", "frozen")
WEIGHT_SCHEDULES = ("linear", "cosine")


@dataclass(frozen=True)
class OptimOverrides:
    """Values of ``optim.*`` that hold from a restart on; ``None`` keeps the run's own.

    ``base_lr`` is, as upstream's, the value before the scaling rule: the scaled ``lr`` changes by the same factor.
    """

    base_lr: float | None = None
    min_lr: float | None = None
    warmup_epochs: int | None = None
    weight_decay: float | None = None
    weight_decay_end: float | None = None
    freeze_last_layer_epochs: int | None = None


@dataclass(frozen=True)
class TeacherOverrides:
    """Values of ``teacher.*`` that hold from a restart on; ``None`` keeps the run's own."""

    momentum_teacher: float | None = None
    final_momentum_teacher: float | None = None
    warmup_teacher_temp: float | None = None
    teacher_temp: float | None = None
    warmup_teacher_temp_epochs: int | None = None


@dataclass(frozen=True)
class OverridesConfig:
    """What a stage changes in the sections that decide the schedules."""

    optim: OptimOverrides = field(default_factory=OptimOverrides)
    teacher: TeacherOverrides = field(default_factory=TeacherOverrides)


@dataclass(frozen=True)
class ViewShares:
    """A mixed view: which share of the samples shows the noisy and which the denoised image; together 1.

    A pair ``[first, last]`` is a linear ramp from the stage's first to its last iteration.
    """

    noisy: Ramp
    denoised: Ramp


@dataclass(frozen=True)
class AnchorConfig:
    """The anchor of NCT: ``weight`` times the loss terms of `dinov2_noise.anchor` against the frozen teacher.

    With ``final_weight`` the weight goes there over the stage, along ``weight_schedule``. ``dino_local``,
    ``dino_global``, ``ibot``: factors of the single terms. ``teacher``: a file to take the frozen teacher from, instead
    of freezing the EMA teacher when the stage begins. ``heads``: whose heads read the frozen backbone's tokens, the
    current EMA teacher's (``ema``, as published) or its own (``frozen``).
    """

    weight: float
    final_weight: float | None = None
    weight_schedule: str = "cosine"
    dino_local: float = 1.0
    dino_global: float = 1.0
    ibot: float = 1.0
    teacher: str | None = None
    heads: str = "ema"


@dataclass(frozen=True)
class StageConfig:
    """One stage: ``epochs`` on one ``view`` of the images, or on a mixture of both.

    ``teacher_view``: what the EMA teacher sees, the student's own crops (``noisy``) or their denoised twins
    (``denoised``). ``schedule_epochs``: the length the schedules are built for; they are cut where the next restart or
    the run's end comes. ``restart``: fresh optimizer state and grad scaler, all schedules from 0; networks and loss
    centers are kept. ``crops``, ``low_pass``, ``gaussian_patch``, ``blur_patch``: see
    `dinov2_noise.curriculum.frequency`; of two patches the noise comes first.
    """

    name: str
    epochs: int
    view: str | ViewShares
    teacher_view: str = "noisy"
    schedule_epochs: int | None = None
    restart: bool = False
    overrides: OverridesConfig = field(default_factory=OverridesConfig)
    anchor: AnchorConfig | None = None
    crops: CropsConfig | None = None
    low_pass: LowPassConfig | None = None
    gaussian_patch: GaussianPatchConfig | None = None
    blur_patch: BlurPatchConfig | None = None

    @property
    def noisy_share(self) -> tuple[float, float]:
        """Share of the samples that show the noisy image, at the first and at the last iteration."""
        if isinstance(self.view, ViewShares):
            return ends(self.view.noisy)
        return (1.0, 1.0) if self.view == "noisy" else (0.0, 0.0)


@dataclass(frozen=True)
class CurriculumConfig:
    """All stages of a run, in order."""

    stages: tuple[StageConfig, ...]


def parse_curriculum(
    section: Mapping[str, Any] | DictConfig, *, total_epochs: int, key: str = "curriculum"
) -> CurriculumConfig:
    """The checked config of a run.

    Args:
        section: the content of ``curriculum:``.
        total_epochs: ``optim.epochs``, which the stages must sum to.
        key: where the section stands, for messages.

    Raises:
        ConfigError: an unknown key, a wrong type, or values that contradict each other; the message names the full key.
    """
    config = build_strict(CurriculumConfig, plain(section, key), key)
    if not config.stages:
        raise ConfigError(
            f"{key}.stages is empty: describe at least one stage, "
            f"such as {{name: noisy, epochs: {total_epochs}, view: noisy}}"
        )
    _check_names(config.stages, key)
    for index, stage in enumerate(config.stages):
        _check_stage(stage, f"{key}.stages[{index}]", begins_segment=index == 0 or stage.restart)
        if index == 0 and stage.overrides.optim.freeze_last_layer_epochs is not None:
            raise ConfigError(
                f"{key}.stages[0].overrides.optim.freeze_last_layer_epochs: for the first stage set "
                "optim.freeze_last_layer_epochs itself, which upstream applies to the beginning of the run"
            )
        _check_anchor(stage, f"{key}.stages[{index}].anchor", is_first=index == 0)
        _check_schedule_epochs(config.stages, index, key)
    epochs = sum(stage.epochs for stage in config.stages)
    if epochs != total_epochs:
        raise ConfigError(
            f"the epochs of {key}.stages sum to {epochs}, but optim.epochs is {total_epochs}: make them equal"
        )
    return config


def _check_names(stages: Sequence[StageConfig], key: str) -> None:
    first: dict[str, int] = {}
    for index, stage in enumerate(stages):
        if not stage.name.strip():
            raise ConfigError(f"{key}.stages[{index}].name is empty: logs and errors name the stage by it")
        if stage.name in first:
            raise ConfigError(
                f"{key}.stages[{index}].name is {stage.name!r}, as that of {key}.stages[{first[stage.name]}]: "
                "give each stage its own"
            )
        first[stage.name] = index


def _check_stage(stage: StageConfig, key: str, *, begins_segment: bool) -> None:
    if stage.epochs < 1:
        raise ConfigError(f"{key}.epochs is {stage.epochs}: a stage lasts at least 1 epoch")
    _check_view(stage, key)
    check_images(stage, key)
    for part in ("optim", "teacher"):
        _check_overrides(getattr(stage.overrides, part), f"{key}.overrides.{part}")
    if begins_segment:
        return
    for name, is_set in (
        ("schedule_epochs", stage.schedule_epochs is not None),
        ("overrides", stage.overrides != OverridesConfig()),
    ):
        if is_set:
            raise ConfigError(
                f"{key}.{name} has no effect: stage {stage.name!r} continues the schedules before it. "
                f"Set {key}.restart: true, or move {name} to the stage where these schedules begin."
            )


def _check_view(stage: StageConfig, key: str) -> None:
    if isinstance(stage.view, ViewShares):
        _check_shares(stage.view, f"{key}.view")
    else:
        choose(stage.view, VIEWS, f"{key}.view")
    choose(stage.teacher_view, VIEWS, f"{key}.teacher_view")
    if stage.teacher_view == "denoised" and stage.noisy_share == (0.0, 0.0):
        raise ConfigError(
            f"{key}.teacher_view: denoised has no effect, the student of this stage sees the denoised images itself"
        )


def _check_shares(shares: ViewShares, key: str) -> None:
    for name in VIEWS:
        ramp = getattr(shares, name)
        check_pair(ramp, f"{key}.{name}")
        if not all(0 <= share <= 1 for share in ends(ramp)):
            raise ConfigError(f"{key}.{name} is {ramp}: a share of the samples lies between 0 and 1")
    for noisy, denoised, place in zip(ends(shares.noisy), ends(shares.denoised), ("first", "last"), strict=True):
        if abs(noisy + denoised - 1) > 1e-6:
            raise ConfigError(
                f"{key}: at the stage's {place} iteration noisy {noisy:g} and denoised {denoised:g} sum to "
                f"{noisy + denoised:g}, they must sum to 1"
            )


def _check_overrides(overrides: OptimOverrides | TeacherOverrides, key: str) -> None:
    for entry in fields(overrides):
        value = getattr(overrides, entry.name)
        if value is None:
            continue
        if value < 0:
            raise ConfigError(f"{key}.{entry.name} is {value}: it cannot be negative")
        if entry.name in ("momentum_teacher", "final_momentum_teacher") and value > 1:
            raise ConfigError(f"{key}.{entry.name} is {value}: a momentum lies between 0 and 1")
        if entry.name in ("base_lr", "teacher_temp", "warmup_teacher_temp") and value == 0:
            raise ConfigError(f"{key}.{entry.name} is 0: it must be positive")


def _check_anchor(stage: StageConfig, key: str, *, is_first: bool) -> None:
    anchor = stage.anchor
    if anchor is None:
        return
    if is_first and anchor.teacher is None:
        raise ConfigError(
            f"{key}: in the first stage there is nothing to freeze yet. Move the anchor to a later stage, or name the "
            f"frozen teacher's file in {key}.teacher"
        )
    if stage.noisy_share == (0.0, 0.0):
        raise ConfigError(
            f"{key}: an anchor compares noisy images with their denoised twins, "
            f"but the view of this stage is {stage.view!r}"
        )
    _check_weights(anchor, key)
    if anchor.teacher is not None and not anchor.teacher.strip():
        raise ConfigError(f"{key}.teacher is empty: name a weights file, or leave it out")
    choose(anchor.heads, HEADS, f"{key}.heads")


def _check_weights(anchor: AnchorConfig, key: str) -> None:
    for name in ("weight", "final_weight", "dino_local", "dino_global", "ibot"):
        value = getattr(anchor, name)
        if value is not None and value < 0:
            raise ConfigError(f"{key}.{name} is {value}: it cannot be negative")
    choose(anchor.weight_schedule, WEIGHT_SCHEDULES, f"{key}.weight_schedule")
    if anchor.final_weight is None and anchor.weight_schedule != AnchorConfig.weight_schedule:
        raise ConfigError(f"{key}.weight_schedule has no effect: set {key}.final_weight too")
    if anchor.dino_local == anchor.dino_global == anchor.ibot == 0:
        raise ConfigError(f"{key}: dino_local, dino_global and ibot are all 0; leave the anchor out instead")


def _check_schedule_epochs(stages: Sequence[StageConfig], index: int, key: str) -> None:
    length = stages[index].schedule_epochs
    if length is None:
        return
    covered = stages[index].epochs
    for follower in stages[index + 1 :]:
        if follower.restart:
            break
        covered += follower.epochs
    if length < covered:
        raise ConfigError(
            f"{key}.stages[{index}].schedule_epochs is {length}, but these schedules must cover {covered} epochs "
            "(up to the next restart or the end of the run)"
        )
