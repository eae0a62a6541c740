"""FastDINOv2 and NCT in one run through upstream's unmodified ``dinov2.train.train``, with two loader workers: denoised
small crops, denoised full crops, noisy full crops with an anchor and noise patches.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf
from PIL import Image

from dinov2_noise import data
from dinov2_noise.augment.patches import GaussianPatch
from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.augment.views import sample_seed
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.curriculum.stages import Curriculum, build

pytestmark = pytest.mark.upstream

BATCH, EPOCH, ITERATIONS, SEED = 4, 1, 7, 0
FIRST_OF = (0, 3, 4)  # stages
SWITCH = "model_0000002.pth"  # upstream saves every three epochs: the first time where the crops change
MAX_SIGMA = 0.5
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": BATCH, "num_workers": 2, "OFFICIAL_EPOCH_LENGTH": EPOCH, "centering": "centering"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.1, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": ITERATIONS, "warmup_epochs": 1},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": ITERATIONS},
    "health": {"period_iterations": 1},
    "step": {"micro_batches": 2},
    "loader": {"augmentation": "upstream"},  # whose crops the reference makes, bit by bit
    "curriculum": {
        "stages": [
            {
                "name": "small",
                "epochs": 3,
                "view": "denoised",
                "schedule_epochs": 6,
                "crops": {"global_crops_size": 48, "local_crops_size": 16},
            },
            {"name": "full", "epochs": 1, "view": "denoised", "restart": True},
            {
                "name": "noisy",
                "epochs": 3,
                "view": "noisy",
                "restart": True,
                "anchor": {"weight": 1.0},
                "gaussian_patch": {"max_sigma": [0.1, MAX_SIGMA]},
            },
        ]
    },
}


def train(config: Path, output: Path, dataset: str, *options: str) -> str:
    """Run upstream's training script; returns its log. What each step was given lies in ``<output>-seen``."""
    done = run_python(
        *(str(Path(__file__).with_name("recorded_training.py")), f"{output}-seen"),
        *("--config-file", str(config), "--output-dir", str(output), f"train.dataset_path={dataset}", *options),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def seen(output: Path, iteration: int) -> dict[str, Any]:
    return checkpoint(Path(f"{output}-seen") / f"{iteration}.pth")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fast-nct") / "fast_nct.yaml"
    OmegaConf.save(OmegaConf.create(CONFIG), path)
    return path


@pytest.fixture(scope="module")
def run(config: Path, small_set: SmallSet) -> Path:
    output = config.parent / "run"
    (config.parent / "log").write_text(train(config, output, small_set.pair()))
    return output


@pytest.fixture(scope="module")
def curriculum() -> Curriculum:
    config = parse_curriculum(CONFIG["curriculum"], total_epochs=ITERATIONS)
    return build(config, EPOCH, Crops(64, 32, 16))


def draws(curriculum: Curriculum, iteration: int) -> list[Draw]:
    sampler = iter(CurriculumSampler(20, BATCH, curriculum, SEED, start_iteration=iteration))
    return [next(sampler) for _ in range(BATCH)]


def reference(draw: Draw, image: Image.Image, px: Mapping[str, int]) -> dict[str, Any]:
    """Upstream's own augmentation, at these sizes, with the draw's seed."""
    from dinov2.configs import dinov2_default_config as defaults
    from dinov2.data.augmentations import DataAugmentationDINO

    scales = (defaults.crops.global_crops_scale, defaults.crops.local_crops_scale, 2)
    transform = DataAugmentationDINO.__mro__[1](*scales, **px)
    with rng_scope(sample_seed(SEED, draw.number)):
        return dict(transform(image))


def test_the_model_is_given_the_crops_of_each_stage(run: Path) -> None:
    for iteration in range(ITERATIONS):
        step = seen(run, iteration)
        full, local = (48, 16) if iteration < FIRST_OF[1] else (64, 32)
        expected = [("teacher", [full]), ("student", [full, local])]
        if iteration >= FIRST_OF[2]:
            expected.insert(0, ("frozen", [64]))
        assert step["seen"] == 2 * expected, (iteration, "two micro-batches")
        assert step["collated_masks"].shape == (2 * BATCH, (full // 16) ** 2)
        assert step["stage"] == (iteration >= FIRST_OF[1]) + (iteration >= FIRST_OF[2])


def test_crops_and_patches_are_those_of_an_independent_reference(
    run: Path, small_set: SmallSet, curriculum: Curriculum
) -> None:
    """Each batch, bit by bit, from the images: patches in the last stage only, as strong as its ramp says there."""
    dataset: Any = data.make(small_set.pair())
    patched = []
    for iteration in range(ITERATIONS):
        step = seen(run, iteration)
        small = iteration < FIRST_OF[1]
        px = {"global_crops_size": 48 if small else 64, "local_crops_size": 16 if small else 32}
        progress = (iteration - FIRST_OF[2]) / 2
        for place, draw in enumerate(draws(curriculum, iteration)):
            image = plain = dataset.denoised(draw.index) if iteration < FIRST_OF[2] else dataset.noisy(draw.index)
            if iteration >= FIRST_OF[2]:
                rng = np.random.default_rng(sample_seed(SEED, draw.number, stream=3))
                image = GaussianPatch(0.1 + (MAX_SIGMA - 0.1) * progress).apply(plain, rng)
                patched.append(np.abs(np.asarray(image, float) - np.asarray(plain)).max())
                twins = reference(draw, dataset.denoised(draw.index), px)["global_crops"]
                for i, twin in enumerate(twins):
                    assert torch.equal(step["collated_global_crops_anchor"][place + BATCH * i], twin.half())
            sample = reference(draw, image, px)
            for name in ("global_crops", "local_crops"):
                for i, crop in enumerate(sample[name]):
                    assert torch.equal(step[f"collated_{name}"][place + BATCH * i], crop.half()), (iteration, name)
    assert max(patched) > 50


def test_every_stage_learns_the_position_grid_of_full_crops(run: Path) -> None:
    for iteration in range(ITERATIONS):
        step = seen(run, iteration)
        assert step["grid_shape"] == [1, 1 + 4 * 4, 192]
        assert step["grid_gradient"] > 0
    teacher = checkpoint(run / "eval" / f"training_{ITERATIONS - 1}" / "teacher_checkpoint.pth")["teacher"]
    assert teacher["backbone.pos_embed"].shape == (1, 17, 192)
    assert bool(torch.isfinite(teacher["backbone.pos_embed"]).all())


def test_losses_and_signs_are_finite_in_every_stage(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "health.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["small"] * 3 + ["full"] + ["noisy"] * 3
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    logged = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    assert len(logged) >= 2
    assert all(math.isfinite(entry["total_loss"]) for entry in logged)


def test_the_optimizer_starts_afresh_at_both_switches(run: Path) -> None:
    steps = [seen(run, iteration)["optimizer_steps"] for iteration in range(ITERATIONS)]
    assert steps == [[], [1], [2], [], [], [1], [2]]


def test_the_log_tells_the_stages_and_nothing_per_worker(run: Path, config: Path) -> None:
    log = (config.parent / "log").read_text()
    assert "crops of 48 and 16 px" in log
    assert "noise patch (largest sigma 0.1 to 0.5)" in log
    assert log.count("Using data augmentation parameters") == 1


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one, by dotted name."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value}
    return {key: leaf for part, child in items for key, leaf in flat(child, f"{name}.{part}".lstrip(".")).items()}


def test_resumed_where_the_crops_change_equals_uninterrupted(run: Path, config: Path, small_set: SmallSet) -> None:
    resumed = config.parent / "resumed"
    resumed.mkdir()
    for name in ("config.yaml", SWITCH):
        shutil.copy(run / name, resumed / name)
    (resumed / "last_checkpoint").write_text(SWITCH)
    log = train(config, resumed, small_set.pair(), "train.num_workers=1")
    assert f"Starting training from iteration {FIRST_OF[1]}" in log
    expected, found = (flat(checkpoint(folder / "model_final.pth")) for folder in (run, resumed))
    assert expected.keys() == found.keys()
    assert any(name.startswith("optimizer.state.") for name in expected)
    for name, value in expected.items():
        same = torch.equal(value, found[name]) if isinstance(value, torch.Tensor) else value == found[name]
        assert same, name
