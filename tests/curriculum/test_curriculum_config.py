"""The config section is strict: what is wrong is named with its full key, and the way out."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import (
    AnchorConfig,
    CurriculumConfig,
    OptimOverrides,
    OverridesConfig,
    StageConfig,
    TeacherOverrides,
    parse_curriculum,
)
from dinov2_noise.errors import ConfigError

NCT = """
stages:
  - {name: denoised, epochs: 30, view: denoised, schedule_epochs: 100}
  - name: noisy
    epochs: 70
    view: noisy
    restart: true
    overrides: {optim: {warmup_epochs: 5}, teacher: {warmup_teacher_temp_epochs: 15}}
    anchor: {weight: 1.6, heads: ema}
"""


def nct() -> dict[str, Any]:
    section = OmegaConf.to_container(OmegaConf.create(NCT))
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}


def broken(path: str, value: object) -> dict[str, Any]:
    """The NCT section with ``value`` at ``path``, such as ``1.anchor.weight`` (below ``stages``)."""
    section = copy.deepcopy(nct())
    *parents, last = path.split(".")
    node: Any = section["stages"]
    for parent in parents:
        node = node[int(parent) if parent.isdigit() else parent]
    node[last] = value
    return section


def test_nct_parses_to_the_published_values() -> None:
    expected = CurriculumConfig(
        stages=(
            StageConfig(name="denoised", epochs=30, view="denoised", schedule_epochs=100),
            StageConfig(
                name="noisy",
                epochs=70,
                view="noisy",
                restart=True,
                overrides=OverridesConfig(
                    OptimOverrides(warmup_epochs=5), TeacherOverrides(warmup_teacher_temp_epochs=15)
                ),
                anchor=AnchorConfig(weight=1.6),
            ),
        )
    )
    assert parse_curriculum(nct(), total_epochs=100) == expected
    assert parse_curriculum(OmegaConf.create(NCT), total_epochs=100) == expected
    assert pickle.loads(pickle.dumps(expected)) == expected


def test_interpolations_of_the_whole_config_are_resolved() -> None:
    cfg = OmegaConf.create({"optim": {"epochs": 4}, "curriculum": {"stages": [{"name": "a", "view": "noisy"}]}})
    cfg.curriculum.stages[0].epochs = "${optim.epochs}"
    assert parse_curriculum(cfg.curriculum, total_epochs=4).stages[0].epochs == 4
    cfg.curriculum.stages[0].epochs = "${optim.epoch}"
    with pytest.raises(ConfigError, match=r"curriculum cannot be resolved.*epoch"):
        parse_curriculum(cfg.curriculum, total_epochs=4)


def test_whole_numbers_do_for_a_weight_and_null_for_no_anchor() -> None:
    assert parse_curriculum(broken("1.anchor.weight", 2), total_epochs=100).stages[1].anchor == AnchorConfig(2.0)
    assert parse_curriculum(broken("1.anchor", None), total_epochs=100).stages[1].anchor is None


def test_mixed_views_and_their_ramps() -> None:
    constant = parse_curriculum(broken("1.view", {"noisy": 0.75, "denoised": 0.25}), total_epochs=100).stages[1]
    assert constant.noisy_share == (0.75, 0.75)
    ramp = parse_curriculum(broken("1.view", {"noisy": [0.5, 1], "denoised": [0.5, 0]}), total_epochs=100).stages[1]
    assert ramp.noisy_share == (0.5, 1.0)
    assert [stage.noisy_share for stage in parse_curriculum(nct(), total_epochs=100).stages] == [(0, 0), (1, 1)]


def test_an_anchor_to_a_file_may_stand_in_the_first_stage() -> None:
    section = {
        "stages": [{"name": "on", "epochs": 3, "view": "noisy", "anchor": {"weight": 1, "teacher": "vits14.pth"}}]
    }
    assert parse_curriculum(section, total_epochs=3).stages[0].anchor == AnchorConfig(1.0, teacher="vits14.pth")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "1.anchr",
            {"weight": 1},
            r"curriculum\.stages\[1\]\.anchr: did you mean 'anchor'\? valid keys .*schedule_epochs",
        ),
        (
            "1.zzz",
            1,
            r"unknown key curriculum\.stages\[1\]\.zzz: valid keys of curriculum\.stages\[1\] are name, epochs",
        ),
        ("1.anchor", {"heads": "ema"}, r"curriculum\.stages\[1\]\.anchor\.weight is missing"),
        ("1.anchor.head", "ema", r"curriculum\.stages\[1\]\.anchor\.head: did you mean 'heads'"),
        ("1.overrides.optim.warmup", 5, r"stages\[1\]\.overrides\.optim\.warmup: did you mean 'warmup_epochs'"),
        ("1.overrides.train", {}, r"unknown key curriculum\.stages\[1\]\.overrides\.train.*optim, teacher"),
        ("1.overrides.optim", None, r"stages\[1\]\.overrides\.optim must be a mapping"),
        ("0.epochs", "thirty", r"curriculum\.stages\[0\]\.epochs must be a whole number, not 'thirty'"),
        ("0.epochs", 30.5, r"stages\[0\]\.epochs must be a whole number, not 30\.5"),
        ("0.epochs", True, r"stages\[0\]\.epochs must be a whole number, not True"),
        ("0.name", 5, r"stages\[0\]\.name must be a string, not 5"),
        ("1.restart", "maybe", r"stages\[1\]\.restart must be true or false, not 'maybe'"),
        ("1.anchor", 1.6, r"stages\[1\]\.anchor must be a mapping with the keys weight, .*, heads, not 1\.6"),
        ("1.anchor.weight", "much", r"stages\[1\]\.anchor\.weight must be a number, not 'much'"),
        ("1.anchor.weight", math.inf, r"stages\[1\]\.anchor\.weight must be finite"),
        ("1.anchor.weight", -0.1, r"stages\[1\]\.anchor\.weight is -0\.1: it cannot be negative"),
        ("1.anchor.heads", "emma", r"stages\[1\]\.anchor\.heads is 'emma': did you mean 'ema'\? valid .* ema, frozen"),
        ("1.view", "nosy", r"stages\[1\]\.view is 'nosy': did you mean 'noisy'\? valid values are noisy, denoised"),
        ("1.view", "denoised", r"stages\[1\]\.anchor: an anchor compares noisy images.*'denoised'"),
        ("0.anchor", {"weight": 1}, r"stages\[0\]\.anchor: in the first stage .* nothing to freeze.*anchor\.teacher"),
        ("1.anchor.teacher", " ", r"stages\[1\]\.anchor\.teacher is empty"),
        ("1.anchor.teacher", "???", r"curriculum\.stages\[1\]\.anchor\.teacher is \?\?\?: set it"),
        ("1.anchor.final_weight", -1, r"stages\[1\]\.anchor\.final_weight is -1\.0: it cannot be negative"),
        ("1.anchor.ibot", -1, r"stages\[1\]\.anchor\.ibot is -1\.0: it cannot be negative"),
        ("1.anchor.weight_schedule", "linear", r"anchor\.weight_schedule has no effect: set .*anchor\.final_weight"),
        ("1.anchor", {"weight": 1, "final_weight": 0, "weight_schedule": "cos"}, "did you mean 'cosine'"),
        ("1.anchor", {"weight": 1, "dino_local": 0, "dino_global": 0, "ibot": 0}, "ibot are all 0"),
        ("1.view", 5, r"stages\[1\]\.view must be a string, not 5"),
        ("1.view", {"noisy": 1}, r"stages\[1\]\.view\.denoised is missing"),
        ("1.view", {"noisy": 0.5, "clean": 0.5}, r"unknown key curriculum\.stages\[1\]\.view\.clean"),
        ("1.view", {"noisy": 0.5, "denoised": 0.4}, r"view: at the stage's first iteration .* sum to 0\.9"),
        ("1.view", {"noisy": [0, 1], "denoised": [1, 0.5]}, r"at the stage's last iteration .* sum to 1\.5"),
        ("1.view", {"noisy": 1.5, "denoised": -0.5}, r"view\.noisy is 1\.5: a share of the samples"),
        ("1.view", {"noisy": [0, 1, 1], "denoised": 0}, r"view\.noisy is \[0\.0, 1\.0, 1\.0\]: a ramp is a pair"),
        ("1.view", {"noisy": "half", "denoised": 0.5}, r"view\.noisy must be a number, not 'half'"),
        ("1.teacher_view", "clean", r"stages\[1\]\.teacher_view is 'clean': valid values are noisy, denoised"),
        ("0.teacher_view", "denoised", r"stages\[0\]\.teacher_view: denoised has no effect"),
        ("1.name", "denoised", r"stages\[1\]\.name is 'denoised', as that of curriculum\.stages\[0\]"),
        ("1.name", " ", r"stages\[1\]\.name is empty"),
        ("0.epochs", 0, r"stages\[0\]\.epochs is 0: a stage lasts at least 1 epoch"),
        ("0.epochs", 31, r"curriculum\.stages sum to 101, but optim\.epochs is 100"),
        ("0.schedule_epochs", 29, r"stages\[0\]\.schedule_epochs is 29, but these schedules must cover 30 epochs"),
        ("1.restart", False, r"stages\[1\]\.overrides has no effect.*stages\[1\]\.restart: true"),
        ("1.overrides.optim.warmup_epochs", -1, r"overrides\.optim\.warmup_epochs is -1: it cannot be negative"),
        ("1.overrides.optim.base_lr", 0.0, r"overrides\.optim\.base_lr is 0: it must be positive"),
        ("1.overrides.teacher", {"momentum_teacher": 1.2}, r"teacher\.momentum_teacher is 1\.2: a momentum lies"),
    ],
)
def test_a_mistake_is_named_with_its_key(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_curriculum(broken(path, value), total_epochs=100)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stages": []}, r"curriculum\.stages is empty"),
        ({}, r"curriculum\.stages is missing"),
        (None, "curriculum must be a mapping with the keys stages"),
        ({"stages": "denoised"}, r"curriculum\.stages must be a list, not 'denoised'"),
        ({"stages": [None]}, r"curriculum\.stages\[0\] must be a mapping"),
        ({"stage": []}, r"unknown key curriculum\.stage: did you mean 'stages'"),
    ],
)
def test_a_mistake_in_the_section_itself(section: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_curriculum(section, total_epochs=100)


def test_schedule_epochs_cover_the_stages_that_continue_them() -> None:
    section = {
        "stages": [
            {"name": "a", "epochs": 2, "view": "denoised", "schedule_epochs": 4},
            {"name": "b", "epochs": 3, "view": "noisy"},
        ]
    }
    with pytest.raises(
        ConfigError, match=r"stages\[0\]\.schedule_epochs is 4, but these schedules must cover 5 epochs"
    ):
        parse_curriculum(section, total_epochs=5)
    section["stages"][0]["schedule_epochs"] = 5
    parse_curriculum(section, total_epochs=5)
    section["stages"][1]["schedule_epochs"] = 9
    with pytest.raises(ConfigError, match=r"stages\[1\]\.schedule_epochs has no effect"):
        parse_curriculum(section, total_epochs=5)


def test_messages_use_the_given_key() -> None:
    with pytest.raises(ConfigError, match=r"^my\.curriculum\.stages is missing"):
        parse_curriculum({}, total_epochs=1, key="my.curriculum")
