"""The block at the log's beginning, word for word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.schedules import ScheduleSettings
from dinov2_noise.curriculum.sections import LoaderConfig, StepConfig
from dinov2_noise.curriculum.summary import Setting, describe, of_run, precision

SETTINGS = ScheduleSettings(
    base_lr=0.004,
    lr=0.004 * (40 / 1024) ** 0.5,
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
    epochs=200,
    epoch_length_iterations=1250,
)
SETTING = Setting(
    n_images=50_000,
    batch_size=20,
    world_size=2,
    scaling_rule="sqrt_wrt_1024",
    precision="fp32 throughout",
    attention="built-in",
)


def test_the_published_curriculum() -> None:
    stages: list[dict[str, Any]] = [
        {"name": "denoised", "epochs": 140, "view": "denoised", "schedule_epochs": 200},
        {"name": "noisy", "epochs": 60, "view": "noisy", "restart": True, "anchor": {"weight": 1.1}},
    ]
    config = parse_curriculum({"stages": stages}, total_epochs=200)
    assert describe(config, SETTINGS, StepConfig(micro_batches=4), SETTING).splitlines() == [
        "dinov2-noise: this run",
        "  images per step  40 = 2 processes x 20, in 4 micro-batches of 5",
        "  training set     50,000 images",
        "  epoch            1,250 iterations = 1 passes over the training set",
        "  run              200 epochs = 250,000 iterations = 200 passes",
        "  stage 0          denoised: 140 epochs = 175,000 iterations = 140 passes",
        "                   view denoised, schedules of 200 epochs",
        "  stage 1          noisy: 60 epochs = 75,000 iterations = 60 passes",
        "                   view noisy, restart, anchor 1.1 (heads ema, teacher frozen at the switch)",
        "  peak LR          stage 0: 0.004 in the config, 0.000791 after the rule sqrt_wrt_1024",
        "  peak LR          stage 1: 0.004 in the config, 0.000791 after the rule sqrt_wrt_1024",
        "  precision        fp32 throughout",
        "  attention        built-in",
        "  augmentation     fast",
    ]


def test_what_else_a_stage_can_say() -> None:
    anchor = {"weight": 1.6, "final_weight": 0.5, "ibot": 0, "heads": "frozen", "teacher": "teacher.pth"}
    mixed = {"noisy": [0.25, 1], "denoised": [0.75, 0]}
    stages: list[dict[str, Any]] = [
        {"name": "mixed", "epochs": 3, "view": mixed, "teacher_view": "denoised"},
        {"name": "noisy", "epochs": 2, "view": "noisy", "anchor": anchor},
        {
            "name": "last",
            "epochs": 1,
            "view": "noisy",
            "restart": True,
            "overrides": {"optim": {"base_lr": 0.002, "warmup_epochs": 0}},
        },
    ]
    config = parse_curriculum({"stages": stages}, total_epochs=6)
    settings = replace(SETTINGS, epochs=6, epoch_length_iterations=10)
    setting = replace(SETTING, world_size=1, n_images=30_000)
    lines = describe(config, settings, StepConfig(), setting).splitlines()
    assert lines[1] == "  images per step  20 = 1 process x 20"
    assert lines[4] == "  run              6 epochs = 60 iterations = 0.04 passes"
    assert lines[6].strip() == "view noisy 0.25 to 1 and denoised 0.75 to 0, the teacher sees denoised"
    assert lines[8].strip() == (
        "view noisy, anchor 1.6 to 0.5 (cosine) (iBOT x 0, heads frozen, teacher from teacher.pth)"
    )
    assert lines[11].endswith("stages 0-1: 0.004 in the config, 0.000791 after the rule sqrt_wrt_1024")
    assert lines[12].endswith("stage 2: 0.002 in the config, 0.000395 after the rule sqrt_wrt_1024")


def test_crops_filters_and_patches() -> None:
    low_pass = {"cutoff_cycles_per_px": [0.125, 0.5], "kind": "butterworth", "order": 3}
    stages: list[dict[str, Any]] = [
        {"name": "low", "epochs": 3, "view": "denoised", "crops": {"global_crops_size": 112, "local_crops_size": 48}},
        {"name": "sharper", "epochs": 2, "view": "noisy", "low_pass": low_pass, "blur_patch": {"max_sigma_px": [0, 4]}},
        {"name": "full", "epochs": 1, "view": "noisy", "gaussian_patch": {"max_sigma": 0.5}},
    ]
    config = parse_curriculum({"stages": stages}, total_epochs=6)
    settings = replace(SETTINGS, epochs=6, epoch_length_iterations=10)
    lines = describe(config, settings, StepConfig(), SETTING).splitlines()
    assert [line.strip() for line in lines[7::3][:3]] == [
        "crops of 112 and 48 px",
        "crops of 224 and 96 px, low-pass (butterworth of order 3, cut-off 0.125 to 0.5 cycles per pixel), "
        "blur patch (largest sigma 0 to 4 px)",
        "crops of 224 and 96 px, noise patch (largest sigma 0.5)",
    ]


def _part(dtype: str, reduced: str = "fp16") -> dict[str, Any]:
    return {"mixed_precision": {"param_dtype": dtype, "reduce_dtype": reduced}}


def test_precision_in_words() -> None:
    section = {
        "grad_scaler": True,
        "student": {"backbone": _part("fp16"), "dino_head": _part("fp32", "fp32")},
        "teacher": {"backbone": _part("fp16"), "dino_head": _part("fp16")},
    }
    assert precision(OmegaConf.create(section)) == (
        "fp16: student backbone, teacher backbone, teacher dino_head; fp32: student dino_head; "
        "gradients summed in fp16/fp32; gradient scaler on"
    )
    section["grad_scaler"], section["student"] = False, {"backbone": _part("fp16")}
    assert precision(OmegaConf.create(section)) == "fp16 throughout; gradients summed in fp16; gradient scaler off"


def test_numbers_come_from_the_merged_config() -> None:
    optim = {name: getattr(SETTINGS, name) for name in ("base_lr", "lr", "min_lr", "warmup_epochs", "weight_decay")}
    optim |= {"weight_decay_end": 0.4, "freeze_last_layer_epochs": 1, "epochs": 2, "scaling_rule": "sqrt_wrt_1024"}
    names = ("momentum_teacher", "final_momentum_teacher", "teacher_temp", "warmup_teacher_temp")
    teacher = {name: getattr(SETTINGS, name) for name in (*names, "warmup_teacher_temp_epochs")}
    cfg = OmegaConf.create(
        {
            "optim": optim,
            "teacher": teacher,
            "train": {"batch_size_per_gpu": 16, "OFFICIAL_EPOCH_LENGTH": 5},
            "crops": {"global_crops_size": 64, "local_crops_size": 32},
            "student": {"patch_size": 16},
            "compute_precision": {
                "grad_scaler": False,
                "student": {"backbone": _part("fp32", "fp32")},
                "teacher": {"backbone": _part("fp32")},
            },
        }
    )
    config = parse_curriculum({"stages": [{"name": "noisy", "epochs": 2, "view": "noisy"}]}, total_epochs=2)
    text = of_run(cfg, config, StepConfig(), LoaderConfig("upstream"), n_images=40, world_size=3, attention="xFormers")
    assert "48 = 3 processes x 16" in text
    assert "2 epochs = 10 iterations = 12 passes" in text
    assert "fp32 throughout; gradients summed in fp32; gradient scaler off" in text
    assert text.endswith("attention        xFormers\n  augmentation     upstream")
