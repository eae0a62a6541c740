"""The batch of a loss that is not finite: kept, or said why not, without hiding what happened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import SmallSet
from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.stages import build
from dinov2_noise.upstream import runtime

pytestmark = pytest.mark.upstream


@pytest.fixture
def watch(tmp_path: Path, small_set: SmallSet) -> Any:
    from dinov2.configs import dinov2_default_config

    from dinov2_noise.upstream.train.watched import Watch

    train = {"batch_size_per_gpu": 2, "OFFICIAL_EPOCH_LENGTH": 3, "output_dir": str(tmp_path)}
    train["dataset_path"] = small_set.pair()
    cfg = OmegaConf.merge(dinov2_default_config, {"train": train, "optim": {"epochs": 1}})
    config = parse_curriculum({"stages": [{"name": "noisy", "epochs": 1, "view": "noisy"}]}, total_epochs=1)
    return Watch(runtime.Run(cfg, config, build(config, 3)), SimpleNamespace(fp16_scaler=None))


def step() -> Any:
    from dinov2_noise.upstream.train.bad_batch import Step

    images = {"collated_global_crops": torch.ones(4, 3, 16, 16), "stage": 0, "number": 2}
    return Step(1, "noisy", images, 0, 1)


def test_a_batch_that_can_be_kept(watch: Any, tmp_path: Path) -> None:
    assert "iteration_" in watch._dump(step(), {"ibot_loss": float("inf")})
    (path,) = (tmp_path / "bad_batch").iterdir()
    assert torch.equal(torch.load(path, weights_only=True)["collated_global_crops"], torch.ones(4, 3, 16, 16))


def test_a_batch_that_cannot(watch: Any, tmp_path: Path) -> None:
    (tmp_path / "bad_batch").write_text("in the way")
    told = watch._dump(step(), {"ibot_loss": float("inf")})
    assert told.startswith("The batch could not be kept: ")
    assert "bad_batch" in told
