"""Run folders of a network that a test can afford, and pictures to show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

SIZE_PX = 56
"""Side of the images that the networks are trained on; patches of 14 px."""


def randomise(model: nn.Module) -> None:
    """Every parameter gets values of its own, so that two that are swapped show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")) else 0.0
            parameter.copy_(around + 0.05 * torch.randn(parameter.shape, generator=generator))


def write_run(
    folder: Path,
    dataset: str = "ImageFolder:root=/gone/images",
    sections: Mapping[str, Any] | None = None,
    **student: Any,
) -> Path:
    """A finished run of 200 iterations: 3 blocks of width 192, patch 14, 56 px; ``student`` changes that.

    ``vit_short`` must be known to upstream.
    """
    from dinov2.configs import dinov2_default_config

    from dinov2_noise.configs import register_guard
    from dinov2_noise.upstream.backbone import build_from_sections

    if "num_register_tokens" in student and "num_register_tokens" not in dinov2_default_config.student:
        pytest.skip("this version of DINOv2 has no registers")
    register_guard()
    own = {
        "student": {"arch": "vit_short", "patch_size": 14, "layerscale": 1.0, **student},
        "crops": {"global_crops_size": SIZE_PX, "local_crops_size": 28},
        "train": {"dataset_path": dataset, "OFFICIAL_EPOCH_LENGTH": 10},
        "optim": {"epochs": 20},
        **(sections or {}),
    }
    config = OmegaConf.merge(dinov2_default_config, own)
    teacher = folder / "eval" / "training_199" / "teacher_checkpoint.pth"
    teacher.parent.mkdir(parents=True)
    OmegaConf.save(config, folder / "config.yaml")
    model = build_from_sections(config)
    randomise(model)
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    torch.save({"teacher": state | {"dino_head.last_layer.weight": torch.zeros(2, 2)}}, teacher)
    return folder


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth colours, (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
