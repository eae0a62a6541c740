"""What tests of the corruption benchmark share: labelled images whose class a few lines of torch can tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dinov2_noise.data import build_index

LEVELS = (40, 100, 160, 220)


@dataclass(frozen=True)
class GrayScale:
    """Validation images (3 per class, 24 px): the class is the gray level, in LEVELS."""

    root: Path

    @property
    def dataset(self) -> str:
        return f"ImageNet:split=VAL:root={self.root}"


@pytest.fixture(scope="session")
def gray_scale(tmp_path_factory: pytest.TempPathFactory) -> GrayScale:
    root = tmp_path_factory.mktemp("gray-scale") / "clean"
    rng = np.random.default_rng(0)
    for label, level in enumerate(LEVELS):
        for number in range(3):
            path = root / "val" / f"n{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((level + rng.integers(-5, 6, size=(24, 24, 3))).astype(np.uint8)).save(path)
    build_index(root, progress=False)
    return GrayScale(root)


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]; importable, hence usable in loader workers."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


def nearest_level(images: Tensor) -> dict[str, Tensor]:
    """A classifier by mean gray level, and one that always says class 0."""
    distance = (images.mean(dim=(1, 2, 3)).unsqueeze(1) * 255 - torch.tensor(LEVELS)).abs()
    return {"level": distance.argmin(dim=1), "zero": torch.zeros(len(images), dtype=torch.int64)}
