"""Pictures of frost, computed: ferns of ice on a ground of fractal noise, five kinds.

ImageNet-C lays parts of photographs over the images. Those are other people's; ours are made here, from fixed seeds,
with the mean colours and spreads of the five photographs that its code draws from. Each picture continues
periodically, so that an image of any size finds its part.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE_PX = 512


class _Kind(NamedTuple):
    mean_rgb: tuple[float, float, float]
    spread: float
    """Standard deviation of the brightness, on [0, 1]."""
    ferns: int
    length_px: float
    """Of the longest fern."""
    ground: float
    """Weight of the fractal noise against the ferns."""


_KINDS = (
    _Kind((0.30, 0.58, 0.65), 0.07, ferns=500, length_px=110, ground=0.8),
    _Kind((0.79, 0.81, 0.84), 0.09, ferns=1200, length_px=70, ground=0.5),
    _Kind((0.79, 0.81, 0.84), 0.09, ferns=700, length_px=130, ground=0.5),
    _Kind((0.54, 0.60, 0.65), 0.11, ferns=2500, length_px=36, ground=0.6),
    _Kind((0.44, 0.48, 0.53), 0.17, ferns=700, length_px=85, ground=0.4),
)
KINDS = len(_KINDS)

_BRANCHES, _BRANCH_SHARE, _POINTS_PER_PX = 15, 0.4, 1.5


@lru_cache(maxsize=KINDS)
def frost_picture(kind: int) -> NDArray[np.float32]:
    """(512, 512, 3) in [0, 1], read-only; ``kind`` from 0 to 4. Made at the first call, in a fraction of a second."""
    chosen = _KINDS[kind]
    rng = np.random.default_rng(kind)
    relief = _standard(_ferns(chosen, rng)) + chosen.ground * _standard(_fractal(rng))
    light = chosen.spread * _standard(relief)[..., None]
    picture = np.clip(np.array(chosen.mean_rgb) + light, 0, 1).astype(np.float32)
    picture.setflags(write=False)
    return picture


def _ferns(kind: _Kind, rng: np.random.Generator) -> NDArray[np.float64]:
    """Brightness of ``kind.ferns`` ferns: a spine, and branches at 60 degrees that shorten towards its tip."""
    place = rng.uniform(0, SIDE_PX, size=(kind.ferns, 1)) + 1j * rng.uniform(0, SIDE_PX, size=(kind.ferns, 1))
    heading = np.exp(2j * np.pi * rng.random((kind.ferns, 1)))
    length = kind.length_px * rng.uniform(0.45, 1, size=(kind.ferns, 1)) ** 2
    strength = rng.uniform(0.2, 1, size=(kind.ferns, 1))
    along = np.linspace(0, 1, int(kind.length_px * _POINTS_PER_PX))
    per_branch = int(len(along) * _BRANCH_SHARE)
    foot = np.repeat(np.linspace(0.05, 0.95, _BRANCHES), per_branch)
    out = np.tile(np.linspace(0, _BRANCH_SHARE, per_branch), _BRANCHES) * (1 - foot)
    points, weights = [place + heading * length * along], [strength * (1 - 0.5 * along)]
    for side in (np.exp(1j * np.pi / 3), np.exp(-1j * np.pi / 3)):
        points.append(place + heading * length * (foot + out * side))
        weights.append(0.7 * strength * (1 - foot))
    where = np.concatenate([part.ravel() for part in points])
    rows, columns = (np.floor(part).astype(int) % SIDE_PX for part in (where.imag, where.real))
    # The points of a fern lie denser the shorter it is: length keeps the light per px the same.
    weight = np.concatenate([(part * length).ravel() for part in weights])
    canvas = np.bincount(rows * SIDE_PX + columns, weight, minlength=SIDE_PX**2).reshape(SIDE_PX, SIDE_PX)
    sharp: NDArray[np.float64] = ndimage.gaussian_filter(canvas, 0.9, mode="wrap")
    light: NDArray[np.float64] = 1 - np.exp(-sharp / sharp.mean() / 3)
    return light


def _fractal(rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise whose power falls as f^-1.5: cloudy, periodic."""
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE_PX, SIDE_PX)))
    frequency = np.hypot(np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX))
    frequency[0, 0] = np.inf
    return np.fft.irfft2(spectrum * frequency**-0.75, s=(SIDE_PX, SIDE_PX))


def _standard(field: NDArray[np.float64]) -> NDArray[np.float64]:
    standard: NDArray[np.float64] = (field - field.mean()) / field.std()
    return standard
