"""Schedules: equal to upstream's for one stage, hand-computed values for the published NCT, errors."""

from __future__ import annotations

import math
import warnings
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import (
    CurriculumConfig,
    OptimOverrides,
    OverridesConfig,
    StageConfig,
    TeacherOverrides,
    parse_curriculum,
)
from dinov2_noise.curriculum.schedules import ScheduleSettings, StagedSchedules, cosine, staged_schedules
from dinov2_noise.errors import ConfigError
from dinov2_noise.torchvision_ops import declare_missing_ops

EPOCH = 2500
PEAK = 0.004 * math.sqrt(512 / 1024)


def published(epochs: int = 100, epoch_length_iterations: int = EPOCH) -> ScheduleSettings:
    """ImageNet-1k as published: batch 512."""
    return ScheduleSettings(
        base_lr=0.004,
        lr=PEAK,
        min_lr=1e-6,
        warmup_epochs=10,
        weight_decay=0.04,
        weight_decay_end=0.4,
        freeze_last_layer_epochs=1,
        momentum_teacher=0.992,
        final_momentum_teacher=1.0,
        teacher_temp=0.07,
        warmup_teacher_temp=0.04,
        warmup_teacher_temp_epochs=30,
        epochs=epochs,
        epoch_length_iterations=epoch_length_iterations,
    )


def nct_config(**second: Any) -> CurriculumConfig:
    overrides = OverridesConfig(OptimOverrides(warmup_epochs=5), TeacherOverrides(warmup_teacher_temp_epochs=15))
    noisy = StageConfig("noisy", 70, "noisy", restart=True, overrides=overrides)
    return CurriculumConfig((StageConfig("denoised", 30, "denoised", schedule_epochs=100), replace(noisy, **second)))


def arrays(schedules: StagedSchedules) -> dict[str, np.ndarray]:
    return {entry.name: getattr(schedules, entry.name) for entry in fields(schedules)}


def single(epochs: int) -> CurriculumConfig:
    return CurriculumConfig((StageConfig("only", epochs, "noisy"),))


def slow_lr(iteration: int, total: int, warmup: int, peak: float = PEAK, final: float = 1e-6) -> float:
    if iteration < warmup:
        return peak * iteration / (warmup - 1)
    return final + (peak - final) * (1 + math.cos(math.pi * (iteration - warmup) / (total - warmup))) / 2


def test_published_nct_agrees_with_a_slow_reference_everywhere() -> None:
    schedules = staged_schedules(published(), nct_config())
    assert all(array.shape == (100 * EPOCH,) and array.dtype == np.float64 for array in arrays(schedules).values())
    # stage 1 is the first 30 epochs of a 100-epoch schedule, stage 2 a whole 70-epoch schedule
    for iteration in [*range(0, 30 * EPOCH, 977), 30 * EPOCH - 1]:
        assert schedules.lr[iteration] == pytest.approx(slow_lr(iteration, 100 * EPOCH, 10 * EPOCH), rel=1e-12)
    for iteration in [*range(0, 70 * EPOCH, 977), 70 * EPOCH - 1]:
        expected = slow_lr(iteration, 70 * EPOCH, 5 * EPOCH)
        assert schedules.lr[30 * EPOCH + iteration] == pytest.approx(expected, rel=1e-12)


def test_published_nct_hand_computed_points() -> None:
    schedules = staged_schedules(published(), nct_config())
    switch, end = 30 * EPOCH, 100 * EPOCH
    # the last iteration before the switch: 20 of 90 epochs of decay, 30 of 100 of the others
    assert schedules.lr[switch - 1] == pytest.approx(
        1e-6 + (PEAK - 1e-6) * (1 + math.cos(math.pi * 20 / 90)) / 2, rel=1e-4
    )
    assert schedules.weight_decay[switch - 1] == pytest.approx(0.22 - 0.18 * math.cos(math.pi * 0.3), rel=1e-4)
    assert schedules.teacher_temp[switch - 1] == pytest.approx(0.07)
    # everything starts again
    assert schedules.lr[switch] == 0.0
    assert schedules.teacher_temp[switch] == pytest.approx(0.04)
    assert schedules.momentum[switch] == pytest.approx(0.992)
    assert schedules.weight_decay[switch] == pytest.approx(0.04)
    # the last layer is frozen during the first epoch after each start, and only then
    for start in (0, switch):
        assert not schedules.last_layer_lr[start : start + EPOCH].any()
        assert schedules.last_layer_lr[start + EPOCH] == schedules.lr[start + EPOCH] > 0
    # stage 2's own warm-ups: 5 epochs of learning rate, 15 of temperature
    assert schedules.lr[switch + 5 * EPOCH] == pytest.approx(PEAK)
    assert schedules.lr[switch:].argmax() in (5 * EPOCH - 1, 5 * EPOCH)
    assert schedules.teacher_temp[switch + 15 * EPOCH // 2] == pytest.approx(0.055, abs=1e-6)
    assert schedules.teacher_temp[switch + 15 * EPOCH - 1] == pytest.approx(0.07)
    # the run ends where upstream's does, one step before the final values
    assert schedules.lr[end - 1] == pytest.approx(1e-6, abs=1e-9)
    assert schedules.momentum[end - 1] == pytest.approx(1.0, abs=1e-9)
    assert schedules.weight_decay[end - 1] == pytest.approx(0.4, abs=1e-6)


def test_a_stage_without_restart_continues_the_schedules() -> None:
    split = CurriculumConfig((StageConfig("a", 4, "denoised"), StageConfig("b", 16, "noisy")))
    whole = arrays(staged_schedules(published(20, 10), single(20)))
    for name, array in arrays(staged_schedules(published(20, 10), split)).items():
        np.testing.assert_array_equal(array, whole[name])


def test_each_override_changes_its_own_schedule_after_the_restart_only() -> None:
    settings = published(20, 10)
    stages = (StageConfig("a", 4, "denoised", schedule_epochs=20), StageConfig("b", 16, "noisy", restart=True))
    plain = arrays(staged_schedules(settings, CurriculumConfig(stages)))
    affected: dict[str, tuple[Any, set[str]]] = {
        "base_lr": (0.008, {"lr", "last_layer_lr"}),
        "min_lr": (1e-5, {"lr", "last_layer_lr"}),
        "warmup_epochs": (2, {"lr", "last_layer_lr"}),
        "weight_decay": (0.1, {"weight_decay"}),
        "weight_decay_end": (0.2, {"weight_decay"}),
        "freeze_last_layer_epochs": (3, {"last_layer_lr"}),
        "momentum_teacher": (0.9, {"momentum"}),
        "final_momentum_teacher": (0.999, {"momentum"}),
        "teacher_temp": (0.06, {"teacher_temp"}),
        "warmup_teacher_temp": (0.05, {"teacher_temp"}),
        "warmup_teacher_temp_epochs": (5, {"teacher_temp"}),
    }
    optim = {entry.name for entry in fields(OptimOverrides)}
    assert set(affected) == optim | {entry.name for entry in fields(TeacherOverrides)}
    for name, (value, expected) in affected.items():
        overrides = (
            OverridesConfig(optim=OptimOverrides(**{name: value}))
            if name in optim
            else OverridesConfig(teacher=TeacherOverrides(**{name: value}))
        )
        changed = arrays(
            staged_schedules(settings, CurriculumConfig((stages[0], replace(stages[1], overrides=overrides))))
        )
        differing = {key for key in plain if not np.array_equal(plain[key][40:], changed[key][40:])}
        assert differing == expected, name
        assert all(np.array_equal(plain[key][:40], changed[key][:40]) for key in plain), name


def test_base_lr_is_overridden_before_the_scaling_rule() -> None:
    stage = StageConfig("a", 1, "noisy", overrides=OverridesConfig(OptimOverrides(base_lr=0.001)))
    assert published().for_stage(stage).lr == pytest.approx(PEAK / 4, rel=1e-15)
    with pytest.raises(ConfigError, match=r"stage 'a' overrides optim\.base_lr"):
        replace(published(), base_lr=0.0).for_stage(stage)


def test_a_learning_rate_warmup_longer_than_its_schedule_names_stage_and_numbers() -> None:
    noisy = StageConfig("noisy", 5, "noisy", restart=True)
    config = CurriculumConfig((StageConfig("denoised", 15, "denoised"), noisy))
    with pytest.raises(ConfigError, match=r"stage 'noisy': optim.warmup_epochs is 10, longer than the schedule of 5"):
        staged_schedules(published(20, 10), config)
    short = replace(noisy, overrides=OverridesConfig(OptimOverrides(warmup_epochs=5)))
    schedules = staged_schedules(published(20, 10), CurriculumConfig((config.stages[0], short)))
    assert schedules.lr[-1] == PEAK  # nothing but warm-up is allowed


def test_stages_must_sum_to_the_runs_epochs() -> None:
    with pytest.raises(ConfigError, match=r"sum to 100, but optim\.epochs is 90"):
        staged_schedules(published(90), nct_config())


def test_cosine_refuses_a_warmup_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"3 \+ 8 iterations of freeze and warm-up exceed 10"):
        cosine(1.0, 0.0, 10, warmup_iterations=8, freeze_iterations=3)


def test_cosine_limits() -> None:
    np.testing.assert_array_equal(cosine(0.3, 0.3, 7), np.full(7, 0.3))
    assert cosine(1.0, 0.0, 0).shape == (0,)
    np.testing.assert_allclose(cosine(1.0, 0.0, 4), [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)])


@pytest.mark.upstream
@pytest.mark.parametrize(
    ("base", "final", "total", "warmup", "start", "freeze"),
    [
        (0.002, 1e-6, 1000, 100, 0.0, 0),
        (0.04, 0.4, 777, 0, 0.0, 0),
        (0.07, 0.07, 30, 30, 0.04, 0),
        (1.0, 0.1, 50, 7, 0.3, 9),
    ],
)
def test_cosine_equals_upstreams(base: float, final: float, total: int, warmup: int, start: float, freeze: int) -> None:
    upstream = pytest.importorskip("dinov2.utils.utils")
    expected = upstream.CosineScheduler(base, final, total, warmup, start, freeze).schedule
    np.testing.assert_array_equal(cosine(base, final, total, warmup, start, freeze), expected)


@pytest.mark.upstream
@pytest.mark.parametrize(("epochs", "temperature_warmup"), [(40, 30), (12, 30)])
def test_one_stage_equals_upstreams_schedulers(epochs: int, temperature_warmup: int) -> None:
    default = pytest.importorskip("dinov2.configs").dinov2_default_config
    cfg = OmegaConf.merge(default, {"optim": {"epochs": epochs, "lr": PEAK}, "train": {"OFFICIAL_EPOCH_LENGTH": 13}})
    cfg.teacher.warmup_teacher_temp_epochs = temperature_warmup
    section = {"stages": [{"name": "only", "epochs": epochs, "view": "noisy"}]}
    ours = arrays(staged_schedules(ScheduleSettings.from_config(cfg), parse_curriculum(section, total_epochs=epochs)))
    theirs = _upstream_train().build_schedulers(cfg)
    for array, scheduler in zip(ours.values(), theirs, strict=True):
        np.testing.assert_array_equal(array, [scheduler[iteration] for iteration in range(epochs * 13)])


def _upstream_train() -> Any:
    declare_missing_ops()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # upstream's layers warn when xFormers is absent
        try:
            return pytest.importorskip("dinov2.train.train")
        except AssertionError as cause:
            pytest.skip(f"upstream's training module needs the active plug-in or xFormers: {cause}")
