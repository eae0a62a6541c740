"""Two processes train as one, through `dinov2-noise train`: saved in one file, continued by one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

pytestmark = pytest.mark.upstream

CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 2, "centering": "sinkhorn_knopp"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0, "block_chunks": 2},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 4, "warmup_epochs": 1, "base_lr": 0.002},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 3, "view": "denoised", "schedule_epochs": 4},
            {"name": "noisy", "epochs": 1, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
        ]
    },
}


def _train(config: Path, output: Path, small_set: SmallSet, processes: int, *options: str) -> str:
    done = run_python(
        *("-m", "dinov2_noise", "train", str(config), "--output", str(output), "--gpus", str(processes)),
        *(f"train.dataset_path={small_set.pair()}", *options),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_two_ranks_save_one_file_and_one_rank_continues(small_set: SmallSet, tmp_path: Path) -> None:
    config = tmp_path / "nct.yaml"
    OmegaConf.save(OmegaConf.create(CONFIG), config)
    two = tmp_path / "two"
    _train(config, two, small_set, 2)
    assert sorted(path.name for path in two.glob("*.pth")) == ["model_0000005.pth", "model_final.pth"]
    saved = torch.load(two / "model_final.pth", weights_only=True)
    assert {int(state["step"]) for state in saved["optimizer"]["state"].values()} == {2}, "restarted after 6 steps"
    at_switch = torch.load(two / "model_0000005.pth", weights_only=True)["model"]
    assert int(saved["model"]["frozen_teacher.frozen"]) == 1
    for name in (key for key in at_switch if key.startswith("teacher.backbone.")):
        frozen = saved["model"][name.replace("teacher.", "frozen_teacher.networks.", 1)]
        assert torch.equal(frozen, at_switch[name]), name
    one = tmp_path / "one"
    # The same joint batch of 4 in one process: the same images in the same order, hence the same first loss.
    _train(config, one, small_set, 1, "train.batch_size_per_gpu=4")
    losses = [json.loads((folder / "training_metrics.json").read_text().splitlines()[0]) for folder in (two, one)]
    # Of the losses only this one is free of the masks, which are drawn per rank.
    assert losses[0]["dino_local_crops_loss"] == pytest.approx(losses[1]["dino_local_crops_loss"], rel=1e-4)

    (two / "config.yaml").unlink()  # the batch size and the epochs of the continued run are others
    (two / "training_metrics.json").unlink()
    content = OmegaConf.merge(OmegaConf.create(CONFIG), {"optim": {"epochs": 5}})
    content.curriculum.stages[1].epochs = 2
    OmegaConf.save(content, config)
    log = _train(config, two, small_set, 1, "train.batch_size_per_gpu=4")
    assert "Starting training from iteration 8" in log
    assert torch.load(two / "model_final.pth", weights_only=True)["iteration"] == 9


def test_another_number_of_images_per_step_is_refused(small_set: SmallSet, tmp_path: Path) -> None:
    config = tmp_path / "nct.yaml"
    OmegaConf.save(OmegaConf.create(CONFIG), config)
    _train(config, tmp_path / "run", small_set, 1)
    done = run_python(
        *("-m", "dinov2_noise", "train", str(config), "--output", str(tmp_path / "run"), "--gpus", "2"),
        f"train.dataset_path={small_set.pair()}",
    )
    assert done.returncode != 0
    assert (
        "was made with 2 images per step, this run has 4 on 2 processes: set train.batch_size_per_gpu=1" in done.stderr
    )
