"""The teacher at the switch, read back from the checkpoint of the switch, is the teacher frozen at the switch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SmallSet, run_python
from omegaconf import OmegaConf

pytestmark = pytest.mark.upstream

CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 1},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8},
    "optim": {"epochs": 5, "warmup_epochs": 1},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 1},
    "evaluation": {"eval_period_iterations": 0},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 3, "view": "denoised"},
            {"name": "noisy", "epochs": 2, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
        ]
    },
}
AT_SWITCH = "model_0000002.pth"  # upstream saves every three epochs


def train(output: Path, small_set: SmallSet, anchor: dict[str, Any]) -> dict[str, torch.Tensor]:
    output.mkdir(exist_ok=True)
    content = OmegaConf.create(CONFIG)
    content.curriculum.stages[1].anchor = anchor
    OmegaConf.save(content, output / "in.yaml")
    done = run_python(
        *("-m", "dinov2.train.train", "--config-file", str(output / "in.yaml"), "--output-dir", str(output)),
        f"train.dataset_path={small_set.pair()}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    model: dict[str, torch.Tensor] = torch.load(output / "model_final.pth", weights_only=True)["model"]
    return model


def test_frozen_at_the_switch_or_read_from_its_checkpoint(small_set: SmallSet, tmp_path: Path) -> None:
    frozen = train(tmp_path / "frozen", small_set, {"weight": 1.0})
    read = tmp_path / "read"
    read.mkdir()
    shutil.copy(tmp_path / "frozen" / AT_SWITCH, read)
    (read / "last_checkpoint").write_text(AT_SWITCH)
    found = train(read, small_set, {"weight": 1.0, "teacher": str(tmp_path / "frozen" / AT_SWITCH)})
    assert [name for name, value in frozen.items() if not torch.equal(value, found[name])] == []
