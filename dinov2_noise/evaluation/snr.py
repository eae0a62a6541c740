"""How noisy the evaluated images are: signal-to-noise ratio in dB, against their clean twins.

SNR = 10 log10(E[x²] / E[(y - x)²]) with the clean image x and the noisy one y in [0, 1], after clipping and rounding to
8 bits, at their original resolution: the definition of "Ditch the Denoiser" (arXiv 2505.12191).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise import data
from dinov2_noise.data.pairs import find_stem, stem_of
from dinov2_noise.decoding import load_rgb

N_IMAGES = 128

Picture = Image.Image | NDArray[np.uint8]


def snr_db(pairs: Iterable[tuple[Picture, Picture]]) -> float | None:
    """Mean over images of the SNR in dB; None where no pair has both signal and noise.

    Args:
        pairs: (clean, noisy), 8-bit, each of one shape. Black and noiseless images have no SNR and are passed over.
    """
    found = []
    for clean, noisy in pairs:
        x, y = (np.asarray(image, np.float64) / 255 for image in (clean, noisy))
        if x.shape != y.shape:
            raise ValueError(f"images of one shape are needed, not {x.shape} and {y.shape}")
        signal, noise = float(np.mean(x**2)), float(np.mean((y - x) ** 2))
        if signal > 0 and noise > 0:
            found.append(10 * math.log10(signal / noise))
    return math.fsum(found) / len(found) if found else None


def snr_of_dataset(text: str, rows: NDArray[np.int64], n: int = N_IMAGES) -> float | None:
    """Mean SNR of the noise that a dataset string adds; None without noise, or where there is a corruption.

    Args:
        text: the dataset string. rows: the images in question, of which ``n``, evenly spread, are looked at.
    """
    spec = data.parse_dataset_string(text)
    if spec.noise is None or spec.corruption is not None:
        return None
    noisy: Any = data.make(text)
    clean: Any = data.make(":".join(part for part in text.split(":") if not part.startswith("noise=")))
    return snr_db((clean.noisy(index), noisy.noisy(index)) for index in _spread(rows, n))


def snr_of_folders(clean: Path, noisy: Path, paths: Sequence[str], n: int = N_IMAGES) -> float | None:
    """Mean SNR of stored noisy images whose clean twins are there; None where one of ``n`` is missing.

    Args:
        clean, noisy: roots. paths: of the images below either, any suffix.
    """
    pairs = []
    for index in _spread(np.arange(len(paths)), n):
        twins = [find_stem(root, stem_of(paths[index])) for root in (clean, noisy)]
        if None in twins:
            return None
        pairs.append((clean / str(twins[0]), noisy / str(twins[1])))
    return snr_db((load_rgb(x), load_rgb(y)) for x, y in pairs)


def _spread(rows: NDArray[np.int64], n: int) -> list[int]:
    return [int(rows[int(place)]) for place in np.linspace(0, len(rows) - 1, min(n, len(rows)))]
