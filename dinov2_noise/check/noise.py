"""The noise of a few of the images: level by intensity, kind, correlation, saturation, bias, signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.check.kinds import Kind, kind_of
from dinov2_noise.check.source import CheckedSet, images_of
from dinov2_noise.data import DatasetSpec, PairedImages
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.decoding import decode_pixels, load_pixels
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.files import MANIFEST_NAME, read_manifest
from dinov2_noise.noise import parse
from dinov2_noise.noise.audit import MAX_IMAGES, NoiseCorrelation, correlation
from dinov2_noise.noise.clipping import stored
from dinov2_noise.noise.levels import LevelCurve, level_curve
from dinov2_noise.noise.models import FloatArray
from dinov2_noise.noise.pool import stream_jobs

BIAS_BINS = 16
CLEAR_SIGMA_255 = 8.0
"""Weaker correlated noise that is seen in the channels alone cannot be told from the picture."""
LINEAR_RANGES = ("dtype", "fixed")
"""Others stretch each image in its own way, so that levels tell nothing of the noise's kind."""
_WINDOW_PX = 256  # of each side that is kept in memory
_STRIPE_PX = 256
_GRID = np.linspace(0, 1, 513)

Source = Literal["clean images", "known noise", "fitted noise"]


class Bias(NamedTuple):
    """mean(noisy - clean), by intensity of the clean image.

    Attributes:
        clean_255, bias_255: (k,) at most 16 bins, on the 8-bit scale.
        source: what it was found with.
    """

    clean_255: FloatArray
    bias_255: FloatArray
    source: Source


@dataclass(frozen=True)
class NoiseFindings:
    """What is known of the noise of ``n_images`` images.

    Attributes:
        correlation: level and autocorrelation.
        curve: level by intensity; None where there are too few pixels.
        kind: None where the noise is weak, like none, or not judged.
        known: name of the noise, where the dataset string or the manifest tells.
        black, white: (3,) shares of saturated pixels, red, green, blue.
        bias: None where nothing tells it.
        snr_db: 10 log10 of signal power by noise power; None where unknown.
    """

    n_images: int
    correlation: NoiseCorrelation
    curve: LevelCurve | None
    kind: Kind | None
    known: str | None
    black: FloatArray
    white: FloatArray
    bias: Bias | None
    snr_db: float | None

    @property
    def is_clear(self) -> bool:
        """Whether there is noise for certain."""
        return _is_clear(self.correlation, self.curve)


def examine(
    checked: CheckedSet, indices: NDArray[np.int64], clean: Path | None, *, workers: int, progress: bool
) -> NoiseFindings | None:
    """Look at up to 64 evenly spaced images of those at ``indices``; None without any.

    Args:
        checked: the images.
        indices: of those that can be decoded.
        clean: root of their clean twins.
        workers, progress: see `check`.

    Raises:
        ImageError: an image that could be read before cannot be read now, or is too small for the corruption.
    """
    if not len(indices):
        return None
    places = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), MAX_IMAGES)).round().astype(int))
    reader, description = _Reader(checked.spec, clean), "noise" if progress else None
    parts = list(stream_jobs(reader, indices[places].tolist(), workers=workers, description=description))
    windows = [part.window for part in parts]
    found, curve = correlation(windows), level_curve(windows)
    model = _known_noise(checked)
    is_clear = _is_clear(found, curve)
    is_judged = is_clear and found.verdict != "correlated" and checked.spec.values.kind in LINEAR_RANGES
    kind = kind_of(curve) if curve is not None and is_judged else None
    used = model if model is not None else None if kind is None else kind.fit.noise
    predicted: Source = "fitted noise" if model is None else "known noise"
    bias, snr = _exact(parts)
    if bias is None and used is not None and curve is not None:
        bias, snr = _predict(used, curve, predicted)
    black, white = np.sum([part.ends for part in parts], axis=0) / sum(part.pixels for part in parts)
    return NoiseFindings(len(windows), found, curve, kind, getattr(model, "name", None), black, white, bias, snr)


def _is_clear(found: NoiseCorrelation, curve: LevelCurve | None) -> bool:
    """Fine texture is correlated: what is independent, or differs between channels, or is strong, is noise."""
    is_noise = found.in_colour or found.verdict == "independent" or found.sigma_255 >= CLEAR_SIGMA_255
    return curve is not None and found.sigma_255 > 0 and is_noise


class _Part(NamedTuple):
    """Of one image.

    Attributes:
        window: its middle, (3, h, w), all that is kept of the pixels.
        pixels: how many it has.
        ends: (2, 3) how many are black, and white, in each channel.
        compared: (3, k) per bin of clean intensity, how many values, and the sums of clean and of noisy - clean.
        power: (2,) sums of squares of clean and of noisy - clean.
    """

    window: NDArray[Any]
    pixels: int
    ends: FloatArray
    compared: FloatArray
    power: FloatArray


@dataclass(frozen=True)
class _Reader:
    """Reads image number i as training would see it; picklable."""

    spec: DatasetSpec
    clean: Path | None

    def __call__(self, index: int) -> _Part:
        images, spec = images_of(self.spec), self.spec
        path = images.relative_path(index)
        base = decode_pixels(images.get_image_data(index), spec.root / path, spec.values)
        is_made = spec.noise is not None or spec.corruption is not None
        seen = _seen(images, index) if is_made else base
        compared, power = np.zeros((3, BIAS_BINS)), np.zeros(2)
        clean = self._clean_of(path, base if is_made else None)
        if clean is not None and clean.shape == seen.shape:
            for start in range(0, len(seen), _STRIPE_PX):  # a large image, in floats, would need gigabytes
                stripe = slice(start, start + _STRIPE_PX)
                _compare(_unit(seen[stripe]), _unit(clean[stripe]), compared, power)
        top = 255 if seen.dtype == np.uint8 else 1.0
        ends = np.array([(seen == end).sum(axis=(0, 1)) for end in (0, top)], np.float64)
        down, right = (max(0, (side - _WINDOW_PX) // 2) for side in seen.shape[:2])
        middle = seen[down : down + _WINDOW_PX, right : right + _WINDOW_PX]
        window = np.ascontiguousarray(middle.transpose(2, 0, 1))
        return _Part(window, seen.shape[0] * seen.shape[1], ends, compared, power)

    def _clean_of(self, path: str, base: NDArray[Any] | None) -> NDArray[Any] | None:
        if self.clean is None:
            return base
        twin = find_twin(self.clean, path)
        try:
            return None if twin is None else load_pixels(self.clean / twin, self.spec.values)
        except DinoNoiseError:  # counted where pairs are compared
            return None


def _seen(images: PairedImages, index: int) -> NDArray[Any]:
    """With noise and corruption, in 8 bits or at full depth, as the dataset string says; fresh noise: the first."""
    epoch = [0] * images.wants_epoch
    return images.noisy_pixels(index, *epoch) if images.full_depth else np.asarray(images.noisy(index, *epoch))


def _compare(noisy: FloatArray, clean: FloatArray, compared: FloatArray, power: FloatArray) -> None:
    """Add to the sums of a `_Part`."""
    bins = np.minimum((clean * BIAS_BINS).astype(int), BIAS_BINS - 1).ravel()
    difference = (noisy - clean).ravel()
    compared += [np.bincount(bins, column, BIAS_BINS) for column in (None, clean.ravel(), difference)]
    power += [float(np.square(clean).sum()), float(np.square(difference).sum())]


def _exact(parts: Sequence[_Part]) -> tuple[Bias | None, float | None]:
    """From clean images; None without any."""
    compared = np.sum([part.compared for part in parts], axis=0)
    signal, noise = np.sum([part.power for part in parts], axis=0)
    count, clean, difference = compared[:, compared[0] > 0]
    if not count.size:
        return None, None
    snr = float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None
    return Bias(255 * clean / count, 255 * difference / count, "clean images"), snr


def _known_noise(checked: CheckedSet) -> Any:
    """From the dataset string, or the manifest of ``add-noise`` in the folder or the one above; else None."""
    if checked.spec.noise is not None:
        return checked.spec.noise
    root = checked.spec.root.resolve()
    for folder in (root, root.parent):
        if (folder / MANIFEST_NAME).is_file():
            try:
                manifest = read_manifest(folder)
                if manifest.get("command") == "add-noise":
                    return parse(manifest["parameters"]["noise"])
            except (DinoNoiseError, KeyError, TypeError):  # of another version, or somebody else's
                return None
    return None


def _predict(noise: Any, curve: LevelCurve, source: Source) -> tuple[Bias | None, float | None]:
    """From the clipping curve of a noise, and from the intensities that are seen."""
    if not hasattr(noise, "exceeds"):  # a range of levels has no single curve
        return None, None
    centres = (np.arange(BIAS_BINS) + 0.5) / BIAS_BINS
    bias = Bias(255 * centres, 255 * (stored(noise, centres).mean - centres), source)
    grid = stored(noise, _GRID)
    means, first = np.unique(grid.mean, return_index=True)
    truth = np.interp(curve.intensities_255 / 255, means, _GRID[first])
    error = np.square(np.interp(truth, _GRID, grid.std)) + np.square(np.interp(truth, _GRID, grid.mean) - truth)
    signal, power = float((truth**2).mean()), float(error.mean())
    return bias, float(10 * np.log10(signal / power)) if signal > 0 and power > 0 else None


def _unit(pixels: NDArray[Any]) -> FloatArray:
    return pixels / 255 if pixels.dtype == np.uint8 else pixels


def at_intensities(x: Sequence[float], bias: Bias) -> list[float]:
    """The bias at intensities of the 8-bit scale, interpolated."""
    return [float(value) for value in np.interp(x, bias.clean_255, bias.bias_255)]
