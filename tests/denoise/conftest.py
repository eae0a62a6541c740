"""A denoiser trained for a few seconds on noisy photographs, and small folders of noisy images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from dinov2_noise.denoise import train_denoiser
from dinov2_noise.noise import add_noise

TILE_PX = 128


@dataclass(frozen=True)
class Trained:
    """Folders of clean and noisy photographs (``train`` and ``val``), and weights trained on the noisy ``train``."""

    clean: Path
    noisy: Path
    weights: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    data = Path(skimage.__file__).parent / "data"
    for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
        picture = Image.open(data / name).convert("RGB")
        # Tiles, because decoding a whole photograph for every crop would take longer than the training step.
        for left in range(0, picture.width - TILE_PX + 1, TILE_PX):
            for top in range(0, picture.height - TILE_PX + 1, TILE_PX):
                tile = picture.crop((left, top, left + TILE_PX, top + TILE_PX))
                _save(tile, root / "clean" / "train" / f"{Path(name).stem}_{left}_{top}.png")
    _save(Image.open(data / "chelsea.png").convert("RGB"), root / "clean" / "val" / "chelsea.png")
    add_noise(root / "clean", root / "noisy", noise="gauss50", workers=1, progress=False)
    weights = train_denoiser(
        root / "noisy",
        root / "denoiser",
        steps=120,
        batch_size=8,
        crop_px=64,
        learning_rate=1e-3,
        n_feature=16,
        residual=True,
        device="cpu",
        progress=False,
    )
    return Trained(root / "clean", root / "noisy", weights)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def make_images() -> Callable[..., Path]:
    """A function (folder, (height, width) per relative name) -> folder with random images."""

    def make(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
        for number, (name, (height, width)) in enumerate(sizes.items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(values).save(path)
        return folder

    return make
