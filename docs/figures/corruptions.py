"""Draw docs/img/corruptions.jpg: the 19 corruptions at severities 1, 3 and 5 on one photograph.

Usage: python docs/figures/corruptions.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from skimage import data

from dinov2_noise.noise.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    Corruption,
    corrupted_uint8,
    standard_crop,
)

OUTPUT = Path(__file__).parent.parent / "img" / "corruptions.jpg"
SHOWN = (1, 3, 5)
STRIPS, ROWS, THUMBNAIL_PX = 4, 5, 150


def strip(image: np.ndarray, name: str) -> np.ndarray:
    """The severities side by side, (224, 3 * 224 + gaps, 3)."""
    made = [corrupted_uint8(image, Corruption(name, severity), relative_path="cat.jpg") for severity in SHOWN]
    gap = np.full((image.shape[0], 6, 3), 255, np.uint8)
    return np.concatenate([part for item in made for part in (item, gap)][:-1], axis=1)


def main() -> None:
    image = np.asarray(standard_crop(Image.fromarray(data.chelsea())))
    size = (STRIPS * (3 * THUMBNAIL_PX + 20) / 100, ROWS * (THUMBNAIL_PX + 34) / 100)
    figure, axes = plt.subplots(ROWS, STRIPS, figsize=size, layout="constrained")
    for place in axes.flat:
        place.axis("off")
    empty = np.full((image.shape[0], 2 * 224 + 12, 3), 255, np.uint8)
    axes.flat[0].imshow(np.concatenate([image, empty], axis=1))
    axes.flat[0].set_title("the photograph, then severities 1, 3, 5", fontsize=13, loc="left")
    for place, name in zip(axes.flat[1:], CORRUPTIONS + EXTRA_CORRUPTIONS, strict=True):
        place.imshow(strip(image, name))
        extra = " (extra)" if name in EXTRA_CORRUPTIONS else ""
        place.set_title(name + extra, fontsize=13, loc="left")
    figure.savefig(OUTPUT, dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
