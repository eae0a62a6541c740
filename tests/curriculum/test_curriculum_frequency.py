"""Crops, low-pass and patches of a stage: the strict config, and their values at each iteration."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from dinov2_noise.augment.patches import BlurPatch, GaussianPatch
from dinov2_noise.augment.views import LowPass
from dinov2_noise.curriculum.config import CurriculumConfig, StageConfig, parse_curriculum
from dinov2_noise.curriculum.frequency import (
    BlurPatchConfig,
    Crops,
    CropsConfig,
    GaussianPatchConfig,
    LowPassConfig,
    check_crops,
    check_sides,
)
from dinov2_noise.curriculum.stages import Stage, build
from dinov2_noise.errors import ConfigError

FASTDINOV2 = """
stages:
  - {name: low, epochs: 150, view: noisy, schedule_epochs: 200, crops: {global_crops_size: 112, local_crops_size: 48}}
  - {name: full, epochs: 50, view: noisy, restart: true, gaussian_patch: {max_sigma: 0.5}}
"""


def one(**keys: Any) -> StageConfig:
    """The only stage of a config, which says ``keys`` besides the required ones."""
    section = {"stages": [{"name": "only", "epochs": 2, "view": "noisy", **keys}]}
    return parse_curriculum(section, total_epochs=2).stages[0]


def stages_of(*stages: dict[str, Any]) -> tuple[StageConfig, ...]:
    named = [{"name": f"s{index}", "epochs": 1, "view": "noisy", **stage} for index, stage in enumerate(stages)]
    return parse_curriculum({"stages": named}, total_epochs=len(named)).stages


def ramped(n_iterations: int = 5, **keys: Any) -> Stage:
    """A stage from iteration 5 on."""
    stages = (StageConfig("before", 1, "noisy"), StageConfig("this", 1, "noisy", **keys))
    return build(CurriculumConfig(stages), n_iterations).stages[1]


def test_fastdinov2_parses_to_the_published_values() -> None:
    low, full = parse_curriculum(OmegaConf.create(FASTDINOV2), total_epochs=200).stages
    assert (low.crops, low.low_pass, low.gaussian_patch) == (CropsConfig(112, 48), None, None)
    assert (full.crops, full.gaussian_patch, full.blur_patch) == (None, GaussianPatchConfig(0.5), None)
    curriculum = build(CurriculumConfig((low, full)), 10, Crops(224, 96, 16))
    assert [stage.crops for stage in curriculum.stages] == [Crops(112, 48, 16), Crops(224, 96, 16)]
    assert [stage.crops.patches_per_side for stage in curriculum.stages] == [7, 14]


def test_constants_ramps_and_defaults() -> None:
    assert one(low_pass={"cutoff_cycles_per_px": 0.25}).low_pass == LowPassConfig(0.25, "gaussian", 2)
    assert one(low_pass={"cutoff_cycles_per_px": [0.1, 0.5], "kind": "butterworth", "order": 3}).low_pass == (
        LowPassConfig((0.1, 0.5), "butterworth", 3)
    )
    assert one(gaussian_patch={"max_sigma": [0, 1]}).gaussian_patch == GaussianPatchConfig((0.0, 1.0))
    assert one(blur_patch={"max_sigma_px": 4}).blur_patch == BlurPatchConfig(4.0)
    assert one(crops={"local_crops_size": 48}).crops == CropsConfig(None, 48)
    assert one(crops=None, low_pass=None).crops is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("crops", {}, r"stages\[0\]\.crops is empty: give global_crops_size or local_crops_size"),
        ("crops", {"global_crops_size": None}, r"stages\[0\]\.crops is empty"),
        ("crops", {"global_crops_size": 0}, r"stages\[0\]\.crops\.global_crops_size is 0: it must be at least 1"),
        ("crops", {"global_crop_size": 112}, r"stages\[0\]\.crops\.global_crop_size: did you mean 'global_crops_size'"),
        ("crops", {"global_crops_size": 112.0}, r"crops\.global_crops_size must be a whole number, not 112\.0"),
        ("crops", 112, r"stages\[0\]\.crops must be a mapping with the keys global_crops_size, local_crops_size"),
        ("low_pass", {}, r"stages\[0\]\.low_pass\.cutoff_cycles_per_px is missing"),
        (
            "low_pass",
            {"cutoff_cycles_per_px": 0},
            r"low_pass\.cutoff_cycles_per_px is 0: a cut-off lies above 0 and at",
        ),
        ("low_pass", {"cutoff_cycles_per_px": 0.6}, r"cutoff_cycles_per_px is 0\.6: .* at most at 0\.5"),
        ("low_pass", {"cutoff_cycles_per_px": [0.1, 30]}, r"cutoff_cycles_per_px is \[0\.1, 30\.0\]: a cut-off"),
        ("low_pass", {"cutoff_cycles_per_px": [0.1]}, r"cutoff_cycles_per_px is \[0\.1\]: a ramp is a pair"),
        ("low_pass", {"cutoff_cycles_per_px": 0.5}, r"stages\[0\]\.low_pass has no effect with the cut-off 0\.5"),
        ("low_pass", {"cutoff_cycles_per_px": [0.5, 0.5]}, r"stages\[0\]\.low_pass has no effect"),
        (
            "low_pass",
            {"cutoff_cycles_per_px": 0.1, "kind": "gauss"},
            r"low_pass\.kind is 'gauss': did you mean 'gaussian'\? valid values are ideal, gaussian, butterworth",
        ),
        (
            "low_pass",
            {"cutoff_cycles_per_px": 0.1, "kind": "butterworth", "order": 0},
            r"low_pass\.order is 0: it must be at least 1",
        ),
        (
            "low_pass",
            {"cutoff_cycles_per_px": 0.1, "order": 4},
            r"low_pass\.order has no effect: only butterworth has an order, kind is 'gaussian'",
        ),
        ("gaussian_patch", {"max_sigma": 0}, r"gaussian_patch\.max_sigma is 0: .* on the scale 0 to 1, lies above 0"),
        ("gaussian_patch", {"max_sigma": 127}, r"gaussian_patch\.max_sigma is 127: .* at most at 1; a ramp may"),
        ("gaussian_patch", {"max_sigma": [0.1, -1]}, r"gaussian_patch\.max_sigma is \[0\.1, -1\.0\]"),
        ("gaussian_patch", {"max_sigma": [0, 0]}, r"gaussian_patch\.max_sigma is \[0\.0, 0\.0\]"),
        ("gaussian_patch", {"max_sigma": [0, 1, 0]}, r"gaussian_patch\.max_sigma is \[0\.0, 1\.0, 0\.0\]: a ramp is"),
        ("gaussian_patch", {"sigma": 1}, r"gaussian_patch\.sigma: did you mean 'max_sigma'"),
        ("blur_patch", {"max_sigma_px": -4}, r"blur_patch\.max_sigma_px is -4: .* in pixels, lies above 0"),
        ("blur_patch", {"max_sigma_px": 1000}, r"blur_patch\.max_sigma_px is 1000: .* at most at 100"),
    ],
)
def test_a_mistake_is_named_with_its_key(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        one(**{key: value})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"crops": {"global_crops_size": 100}}, {}],
            r"stages\[0\]\.crops\.global_crops_size is 100, not a multiple of student\.patch_size, 16: take 96 or 112",
        ),
        (
            [{"crops": {"local_crops_size": 8}}, {}],
            r"stages\[0\]\.crops\.local_crops_size is 8, not a multiple of student\.patch_size, 16: take 16",
        ),
        (
            [{"crops": {"global_crops_size": 64}}, {}],
            r"stages\[0\]\.crops: local crops of 96 px are larger than the global ones of 64 px; lower .*\.crops\.l",
        ),
        (
            [{}, {"crops": {"global_crops_size": 112}}],
            r"stages\[1\]\.crops: the last stage has crops of 112 and 96 px, .* grid is made for .*224 and 96 px"
            r".* Set crops\.global_crops_size=112 and crops\.local_crops_size=96, or end with a stage",
        ),
        (
            [{"crops": {"global_crops_size": 16, "local_crops_size": 16}}, {}],
            r"stages\[0\]\.crops\.global_crops_size is 16, a single patch, .* iBOT can mask nothing: take at least 32",
        ),
        (
            [{"low_pass": {"cutoff_cycles_per_px": [0.01, 0.5], "kind": "ideal"}}],
            r"stages\[0\]\.low_pass\.cutoff_cycles_per_px of 0\.01 leaves a single colour of local crops of 96 px,"
            r" whose lowest frequency is 0\.0104",
        ),
        ([{"crops": {"local_crops_size": 48}}], r"stages\[0\]\.crops: the last stage has crops of 224 and 48 px"),
    ],
)
def test_crops_must_fit_the_network(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_crops(stages_of(*stages), Crops(224, 96, 16))


def test_crops_that_fit() -> None:
    check_crops(stages_of({"crops": {"global_crops_size": 112, "local_crops_size": 48}}, {}), Crops(224, 96, 16))
    check_crops(stages_of({"crops": {"global_crops_size": 256}}, {}), Crops(224, 96, 16))
    check_crops(stages_of({}, {"crops": {"global_crops_size": 224}}), Crops(224, 96, 16))
    check_crops(stages_of({"low_pass": {"cutoff_cycles_per_px": 0.0105, "kind": "ideal"}}), Crops(224, 96, 16))
    check_crops(stages_of({"low_pass": {"cutoff_cycles_per_px": 1 / 49, "kind": "ideal"}}), Crops(98, 49, 7))
    check_crops(stages_of({"low_pass": {"cutoff_cycles_per_px": [0.01, 0.5]}}), Crops(224, 96, 16))
    check_crops(stages_of({"crops": {"global_crops_size": 98, "local_crops_size": 98}}, {}), Crops(224, 98, 14))


def test_the_configs_own_crops_too() -> None:
    with pytest.raises(ConfigError, match=r"^crops: local crops of 96 px are larger than the global ones of 64 px"):
        check_sides(Crops(64, 96, 16), "crops")
    with pytest.raises(ConfigError, match=r"^crops\.local_crops_size is 96, not a multiple .* 14: take 84 or 98"):
        check_sides(Crops(224, 96, 14), "crops")


def test_a_cutoff_is_a_line_over_the_stage() -> None:
    stage = ramped(low_pass=LowPassConfig((0.1, 0.5), "ideal"))
    cutoffs = [stage.low_pass_at(iteration).cutoff_cycles_per_px for iteration in range(5, 10)]  # type: ignore[union-attr]
    assert cutoffs == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-15)
    assert cutoffs[-1] == 0.5, "exactly, so that nothing is filtered any more"
    assert stage.low_pass_at(7) == LowPass(pytest.approx(0.3), "ideal", 2)
    assert ramped().low_pass_at(7) is None
    assert ramped(low_pass=LowPassConfig(0.2)).low_pass_at(9) == LowPass(0.2, "gaussian", 2)


def test_patches_follow_their_lines_and_the_noise_comes_first() -> None:
    stage = ramped(gaussian_patch=GaussianPatchConfig((0.0, 0.5)), blur_patch=BlurPatchConfig((4.0, 2.0)))
    assert [stage.patches_at(iteration) for iteration in (5, 7, 9)] == [
        (GaussianPatch(0.0), BlurPatch(4.0)),
        (GaussianPatch(0.25), BlurPatch(3.0)),
        (GaussianPatch(0.5), BlurPatch(2.0)),
    ]
    assert ramped().patches_at(5) == ()
    assert ramped(blur_patch=BlurPatchConfig(3.0)).patches_at(6) == (BlurPatch(3.0),)


def test_what_loaders_prefetch_past_the_end_has_the_last_value() -> None:
    stage = ramped(low_pass=LowPassConfig((0.1, 0.4)), gaussian_patch=GaussianPatchConfig((0.9, 0.1)))
    for iteration in (10, 1000):
        assert stage.low_pass_at(iteration) == LowPass(0.4, "gaussian", 2)
        assert stage.patches_at(iteration) == (GaussianPatch(0.1),)


def test_a_stage_of_one_iteration_has_the_first_value() -> None:
    stage = ramped(n_iterations=1, low_pass=LowPassConfig((0.1, 0.4)))
    assert stage.low_pass_at(1) == LowPass(0.1, "gaussian", 2)
