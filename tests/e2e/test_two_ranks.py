"""Two processes train as one, through `dinov2-noise train`: saved in one file, continued by one process."""

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
    "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 1, "centering": "sinkhorn_knopp"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0, "block_chunks": 2},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 8, "warmup_epochs": 1, "base_lr": 0.002},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
    "curriculum": {
        "stages": [
            {
                "name": "small",
                "epochs": 4,
                "view": "denoised",
                "schedule_epochs": 8,
                "crops": {"global_crops_size": 48, "local_crops_size": 16},
                "gaussian_patch": {"max_sigma": [0.1, 0.5]},
            },
            {"name": "denoised", "epochs": 2, "view": "denoised"},
            {"name": "noisy", "epochs": 2, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
        ]
    },
}

LIMITED = """
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10**7, 10**7))
sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)
"""


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def _train(config: Path, output: Path, small_set: SmallSet, processes: int, *options: str) -> str:
    done = run_python(
        *("-m", "dinov2_noise", "train", str(config), "--output", str(output), "--gpus", str(processes)),
        *(f"train.dataset_path={small_set.pair()}", *options),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_two_ranks_save_one_file_and_one_rank_continues(small_set: SmallSet, tmp_path: Path) -> None:
    config = tmp_path / "nct.yaml"
    # Masks and KoLeo depend on how a batch is cut; without them one rank computes what two did.
    content = OmegaConf.merge(CONFIG, {"ibot": {"loss_weight": 0}, "dino": {"koleo_loss_weight": 0}})
    content = OmegaConf.merge(content, {"ibot": {"mask_sample_probability": 0}})
    OmegaConf.save(content, config)
    two, one = tmp_path / "two", tmp_path / "one"
    _train(config, two, small_set, 2)
    names = ["model_0000002.pth", "model_0000005.pth", "model_final.pth"]
    assert sorted(path.name for path in two.glob("*.pth")) == names
    begun, at_switch, final = (_load(two / name) for name in names)
    assert {int(state["step"]) for state in final["optimizer"]["state"].values()} == {2}, "restarted after 6 steps"
    assert int(final["model"]["frozen_teacher.frozen"]) == 1
    for name in (key for key in at_switch["model"] if key.startswith("teacher.backbone.")):
        frozen = final["model"][name.replace("teacher.", "frozen_teacher.networks.", 1)]
        assert torch.equal(frozen, at_switch["model"][name]), name

    one.mkdir()
    for name in ("config.yaml", "model_0000002.pth"):
        shutil.copy(two / name, one / name)
    (one / "last_checkpoint").write_text("model_0000002.pth")
    log = _train(config, one, small_set, 1, "train.batch_size_per_gpu=4")
    assert "Starting training from iteration 3" in log, "with small crops still"
    assert "holds the random state of 2 processes, this run has 1" in log
    continued = _load(one / "model_final.pth")
    assert continued["iteration"] == final["iteration"] == 7
    moved = 0.0
    for name, tensor in final["model"].items():
        torch.testing.assert_close(continued["model"][name], tensor, rtol=1e-3, atol=1e-5, msg=name)
        moved = max(moved, float((tensor.float() - begun["model"][name].float()).abs().max()))
    assert moved > 1e-3, "five steps must change more than the tolerance hides"


def test_another_number_of_images_per_step_is_refused(small_set: SmallSet, tmp_path: Path) -> None:
    config = tmp_path / "nct.yaml"
    OmegaConf.save(OmegaConf.create(CONFIG), config)
    _train(config, tmp_path / "run", small_set, 2)
    done = run_python(
        *("-m", "dinov2_noise", "train", str(config), "--output", str(tmp_path / "run"), "--gpus", "1"),
        f"train.dataset_path={small_set.pair()}",
    )
    assert done.returncode != 0
    assert "model_final.pth was made with 4 images per step, this run has 2 on 1 processes" in done.stderr
    assert "set train.batch_size_per_gpu=4" in done.stderr


def test_a_full_disk_is_found_before_the_first_step(small_set: SmallSet, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end; both ranks stop, and nothing half-written stays."""
    config, output = tmp_path / "nct.yaml", tmp_path / "run"
    OmegaConf.save(OmegaConf.create(CONFIG), config)
    command = ["-m", "dinov2_noise", "train", str(config), "--output", str(output), "--gpus", "2"]
    done = run_python("-c", LIMITED, *command, f"train.dataset_path={small_set.pair()}")
    assert done.returncode != 0
    assert done.stderr.count("CheckpointError: no checkpoint can be written") >= 2, "each rank says it"
    assert "tried before the first step" in done.stderr
    assert "this run needs room for 3, " in done.stderr
    assert "File too large" in done.stderr
    assert "Starting training" not in done.stdout
    assert [path.name for path in output.rglob("*") if "partial" in path.name or path.suffix == ".pth"] == []
    assert not (output / "last_checkpoint").exists()
