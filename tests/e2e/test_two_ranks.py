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
    "optim": {"epochs": 3, "warmup_epochs": 1, "base_lr": 0.002},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 1, "view": "denoised", "schedule_epochs": 3},
            {"name": "noisy", "epochs": 2, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
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
    assert {int(state["step"]) for state in saved["optimizer"]["state"].values()} == {4}, "restarted after 2 steps"
    one = tmp_path / "one"
    # The same joint batch of 4 in one process: the same images in the same order, hence the same first loss.
    _train(config, one, small_set, 1, "train.batch_size_per_gpu=4")
    losses = [json.loads((folder / "training_metrics.json").read_text().splitlines()[0]) for folder in (two, one)]
    # Of the losses only this one is free of the masks, which are drawn per rank.
    assert losses[0]["dino_local_crops_loss"] == pytest.approx(losses[1]["dino_local_crops_loss"], rel=1e-4)

    (two / "config.yaml").unlink()  # the batch size and the epochs of the continued run are others
    content = OmegaConf.merge(OmegaConf.create(CONFIG), {"optim": {"epochs": 4}})
    content.curriculum.stages[1].epochs = 3
    OmegaConf.save(content, config)
    log = _train(config, two, small_set, 1, "train.batch_size_per_gpu=4")
    assert "Starting training from iteration 6" in log
    assert torch.load(two / "model_final.pth", weights_only=True)["iteration"] == 7
