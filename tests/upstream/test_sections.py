"""The sections step and health, and files that a curriculum names: wrong ones are found before anything is written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet
from omegaconf import OmegaConf

from dinov2_noise.augment.patches import GaussianPatch
from dinov2_noise.configs import shipped
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.curriculum.sections import HealthConfig, StepConfig
from dinov2_noise.errors import CheckpointError, ConfigError, DatasetStringError
from dinov2_noise.upstream import runtime

pytestmark = pytest.mark.upstream


@pytest.fixture(autouse=True)
def _no_run_left() -> Iterator[None]:
    yield
    runtime.start(None)


def merged(tmp_path: Path, small_set: SmallSet, *options: str, **sections: Any) -> Any:
    from dinov2.utils.config import get_cfg_from_args

    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(shipped()["nct"]), sections), path)
    opts = [f"train.dataset_path={small_set.pair()}", *options]
    output = str(tmp_path / "out")
    arguments = {"config_file": str(path), "output_dir": output, "opts": opts, "eval_only": False, "no_resume": False}
    return get_cfg_from_args(argparse.Namespace(**arguments))


def test_defaults_and_values_reach_the_run(tmp_path: Path, small_set: SmallSet) -> None:
    merged(tmp_path, small_set)
    run = runtime.current()
    assert run is not None
    assert (run.step, run.health) == (StepConfig(), HealthConfig())
    merged(tmp_path, small_set, "step.micro_batches=4", health={"period_iterations": 7})
    run = runtime.current()
    assert run is not None
    assert (run.step.micro_batches, run.health.period_iterations) == (4, 7)


def test_options_for_a_stages_images_reach_the_run(tmp_path: Path, small_set: SmallSet) -> None:
    prefix = "curriculum.stages.0"
    merged(
        *(tmp_path, small_set, f"{prefix}.crops.global_crops_size=112", f"{prefix}.crops.local_crops_size=48"),
        *(f"{prefix}.low_pass.cutoff_cycles_per_px=[0.1,0.5]", "curriculum.stages.1.gaussian_patch.max_sigma=0.5"),
    )
    run = runtime.current()
    assert run is not None
    small, full = run.curriculum.stages
    assert (small.crops, full.crops) == (Crops(112, 48, 16), Crops(224, 96, 16))
    last = small.low_pass_at(small.n_iterations - 1)
    assert last is not None
    assert last.cutoff_cycles_per_px == 0.5
    assert full.patches_at(full.first_iteration) == (GaussianPatch(0.5),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["step.micro_batches=3"], r"step\.micro_batches is 3: it must divide train\.batch_size_per_gpu, 64"),
        (["step.micro_batches=0"], r"step\.micro_batches is 0"),
        (["step.microbatches=2"], r"unknown key step\.microbatches: did you mean 'micro_batches'"),
        (["health.max_skipped_steps=0"], r"health\.max_skipped_steps is 0: it must be at least 1"),
        (["health.period_iteration=5"], r"unknown key health\.period_iteration: did you mean 'period_iterations'"),
        (["optim.warmup_epochs=-1"], r"optim\.warmup_epochs is -1: it must be at least 0"),
        (["optim.freeze_last_layer_epochs=-1"], r"optim\.freeze_last_layer_epochs is -1"),
        (["teacher.warmup_teacher_temp_epochs=-2"], r"teacher\.warmup_teacher_temp_epochs is -2"),
        (["train.batch_size_per_gpu=0"], r"train\.batch_size_per_gpu is 0: it must be at least 1"),
        (["train.OFFICIAL_EPOCH_LENGTH=0"], r"train\.OFFICIAL_EPOCH_LENGTH is 0"),
        (["crops.local_crops_size=100"], r"local_crops_size is 100, not a multiple .* 16: take 96 or 112"),
        (["crops.global_crops_size=8"], r"global_crops_size is 8, not a multiple of student\.patch_size, 16: take 16"),
        (["crops.global_crops_size=64"], r"^crops: local crops of 96 px are larger than the global ones of 64 px"),
        (
            ["curriculum.stages.0.crops.global_crops_size=100"],
            r"curriculum\.stages\[0\]\.crops\.global_crops_size is 100, not a multiple .* 16: take 96 or 112",
        ),
        (
            ["curriculum.stages.1.crops.global_crops_size=112"],
            r"curriculum\.stages\[1\]\.crops: the last stage has crops of 112 and 96 px, but the position grid is made",
        ),
        (["curriculum.stages.0.gaussian_patch.max_sigma=50"], r"stages\[0\]\.gaussian_patch\.max_sigma is 50"),
        (["curriculum=null", "health.trial_save=false"], r"the sections step, health and monitor need a curriculum"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, small_set: SmallSet, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merged(tmp_path, small_set, *options)
    assert not (tmp_path / "out").exists()


def test_a_teachers_file_that_is_not_there(tmp_path: Path, small_set: SmallSet) -> None:
    with pytest.raises(CheckpointError, match=r"curriculum\.stages\[1\]\.anchor\.teacher: 'gone\.pth' does not exist"):
        merged(tmp_path, small_set, "curriculum.stages.1.anchor.teacher=gone.pth")
    assert not (tmp_path / "out").exists()


def test_a_teachers_file_is_not_needed_once_its_stage_has_begun(tmp_path: Path, small_set: SmallSet) -> None:
    (tmp_path / "out").mkdir()
    begins = 30 * 2500
    (tmp_path / "out" / "last_checkpoint").write_text(f"model_{begins - 1:07d}.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        merged(tmp_path, small_set, "curriculum.stages.1.anchor.teacher=gone.pth")
    (tmp_path / "out" / "last_checkpoint").write_text(f"model_{begins:07d}.pth")
    merged(tmp_path, small_set, "curriculum.stages.1.anchor.teacher=gone.pth")
    run = runtime.current()
    assert run is not None
    assert run.first_iteration == begins + 1


def test_a_dataset_that_knows_no_stages(tmp_path: Path, small_set: SmallSet) -> None:
    stages = [{"name": "on", "epochs": 100, "view": "noisy"}]
    for name in ("ImagNet", "ImageNet22k"):
        with pytest.raises(DatasetStringError, match=rf"unknown dataset '{name}' .*: valid are ImageFolder, ImageNet"):
            merged(tmp_path, small_set, f"train.dataset_path={name}:root=x", curriculum={"stages": stages})


def test_an_anchor_without_denoised_images(tmp_path: Path, small_set: SmallSet) -> None:
    stages = [{"name": "on", "epochs": 100, "view": "noisy", "teacher_view": "denoised"}]
    plain = f"train.dataset_path=ImageNet:split=TRAIN:root={small_set.noisy}"
    with pytest.raises(ConfigError, match="append `:denoised=FOLDER`"):
        merged(tmp_path, small_set, plain, curriculum={"stages": stages})
