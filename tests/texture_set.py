"""Images of three real textures with masks that tell them apart, planted so that colour tells little.

Brick, grass and gravel (scikit-image) are brought to one mean and one contrast, and put side by side along a tilted
line, or one in a disc within the other. Training and validation come from different halves of each photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

TEXTURES = ("brick", "grass", "gravel")
SIDE_PX = 128
VOID = 255


@dataclass(frozen=True)
class TextureSet:
    """``root/<split>/images/*.png`` and ``root/<split>/masks/*.png``, and ``root/classes.txt``."""

    root: Path

    def options(self) -> list[str]:
        """Of ``evaluate dense``."""
        found = []
        for split in ("train", "val"):
            for kind in ("images", "masks"):
                found += [f"--{split}-{kind}", str(self.root / split / kind)]
        return [*found, "--classes", str(self.root / "classes.txt")]


def write_texture_set(root: Path, n_train: int = 24, n_val: int = 12, side_px: int = SIDE_PX) -> TextureSet:
    """Write the set; the border between two textures has no class, 2 px wide."""
    rng = np.random.default_rng(0)
    for split, count, half in (("train", n_train, 0), ("val", n_val, 1)):
        for number in range(count):
            first, second = rng.permutation(3)[:2]
            share = _disc(rng, side_px) if number % 3 == 2 else _side(rng, side_px)
            inside, border = share > 1, np.abs(share) <= 1
            pixels = np.where(inside, _crop(first, half, rng, side_px), _crop(second, half, rng, side_px))
            mask = np.where(border, VOID, np.where(inside, first, second)).astype(np.uint8)
            for kind, array in (("images", np.stack([pixels] * 3, axis=2)), ("masks", mask)):
                path = root / split / kind / f"{number:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    (root / "classes.txt").write_text("\n".join(TEXTURES) + "\n")
    return TextureSet(root)


def _crop(texture: int, half: int, rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
    """A square of one half of a photograph, with mean 128 and standard deviation 45 before clipping."""
    image = getattr(data, TEXTURES[texture])().astype(np.float64)
    width = image.shape[1] // 2
    top = rng.integers(0, image.shape[0] - side_px + 1)
    left = half * width + rng.integers(0, width - side_px + 1)
    square = image[top : top + side_px, left : left + side_px]
    return np.clip(128 + 45 * (square - square.mean()) / square.std(), 0, 255).astype(np.uint8)


def _places(side_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:side_px, :side_px] - (side_px - 1) / 2
    return y, x


def _side(rng: np.random.Generator, side_px: int) -> NDArray[np.float64]:
    """Distance in px from a line near the middle, (S, S); above 0 on one side."""
    (y, x), angle = _places(side_px), rng.uniform(0, 2 * np.pi)
    distance: NDArray[np.float64] = np.cos(angle) * x + np.sin(angle) * y - rng.uniform(-0.15, 0.15) * side_px
    return distance


def _disc(rng: np.random.Generator, side_px: int) -> NDArray[np.float64]:
    """Distance in px from a circle, (S, S); above 0 inside."""
    (y, x), (dy, dx) = _places(side_px), rng.uniform(-0.1, 0.1, size=2) * side_px
    distance: NDArray[np.float64] = 0.35 * side_px - np.hypot(y - dy, x - dx)
    return distance
