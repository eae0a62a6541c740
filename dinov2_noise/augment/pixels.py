"""Pictures as arrays: what the augmentations of our own accept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODES = ("L", "RGB")

# A picture of 8 bits per channel, or its pixels: (H, W, 3), floating point in [0, 1] for greater depth, or uint8.
Picture = Image.Image | NDArray[Any]


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) in pixels."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def pixels_uint8(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an 8-bit picture, (H, W) of a grey or (H, W, 3) of an RGB one; a copy.

    Raises:
        ValueError: the picture is of another mode (palette, transparency, 16 bit, …).
    """
    if image.mode not in MODES:
        raise ValueError(f"a picture of mode {image.mode!r}: convert it to 8-bit RGB or L (grey) first")
    return np.array(image)


def rounded_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values on the 8-bit scale, rounded to the nearest and clamped to 0 … 255."""
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
