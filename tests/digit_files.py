"""Made-up digits in the files of MNIST, for tests."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    """``values`` in the IDX format."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def blobs(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bright bars on black, 28 x 28; the class, of ten, is the bar's height in the image."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = 4 + 2 * int(label), int(rng.integers(4, 8))
        image[top : top + 3, left : left + 14] = rng.integers(150, 256)
    return images, labels


def write_digits(folder: Path, *, train: int = 300, test: int = 60, packed: bool = False) -> Path:
    """The four files, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES, (*blobs(train, 0), *blobs(test, 1)), strict=True):
        content = idx_bytes(values)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder
