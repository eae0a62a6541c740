"""How sure is the audit of noise, and how fast is `dinov2-noise check`? Measured on clean photographs.

Usage: python benchmarks/noise_audit.py [--only verdicts|levels|speed] [FOLDER …]. Each FOLDER holds clean images; the
photographs in scikit-image, and 64-px cells of them, are always looked at. Prints

verdicts  for independent and correlated noise: verdict, estimated level, largest autocorrelation; seconds of one audit
levels    for known noise, estimated from noisy images alone: level, kind, bias and signal-to-noise ratio, beside the
          true ones
speed     images per second of `check` on each FOLDER with 1 and 2 processes, beside decoding alone, and peak memory

One to five minutes.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from skimage import data

from dinov2_noise.check import check
from dinov2_noise.check.noise import Bias, NoiseFindings, at_intensities
from dinov2_noise.decoding import load_pixels, load_rgb
from dinov2_noise.files import list_images
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.audit import correlation
from dinov2_noise.noise.clipping import PoissonGaussian, stored
from dinov2_noise.noise.models import PixelNoise
from dinov2_noise.noise.pool import run_jobs

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Make = Callable[[Pixels, int], Pixels]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
PUBLISHED = ("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7", "speckle1.0")
LEVELS = ("gauss10", "gauss25", "gauss50", "gauss100", "gauss255", "shot100", "shot30", "shot10", "shot3", "shot1")
LEVELS = (*LEVELS, "speckle0.1", "speckle0.4", "speckle0.7", "speckle1.0", "poissongauss100_8", "poissongauss30_20")
STRONG = ("gauss25", "gauss50", "gauss100", "gauss255")
CELL_PX, CROP_PX = 64, 384


def white(name: str, image: Pixels, number: int) -> Pixels:
    return noisy_uint8(image, parse(name), relative_path=f"{number}.png")


def filtered(make: Callable[[Floats], Floats], sigma_255: float, image: Pixels, number: int) -> Pixels:
    """Noise that is filtered before it is added; its level is that after filtering."""
    noise = make(np.random.default_rng(number).normal(size=image.shape))
    return np.clip(image + noise * (sigma_255 / noise.std()), 0, 255).astype(np.uint8)


def blur(radius_px: float) -> Callable[[Floats], Floats]:
    return lambda noise: np.asarray(gaussian_filter(noise, (radius_px, radius_px, 0)))


def demosaic(noise: Floats) -> Floats:
    """Of each pixel of a Bayer pattern one colour is measured; the others are interpolated from neighbours."""
    row, column = np.indices(noise.shape[:2])
    measured = ((row % 2 == 0) & (column % 2 == 0), (row + column) % 2 == 1, (row % 2 == 1) & (column % 2 == 1))
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    kernels = (square, cross, square)
    planes = [convolve(noise[..., c] * measured[c], kernels[c]) for c in range(3)]
    return np.stack(planes, axis=-1)


def jpeg(quality: int, subsampling: int, name: str, image: Pixels, number: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(white(name, image, number)).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer))


def resized(factor: float, name: str, image: Pixels, number: int) -> Pixels:
    picture = Image.fromarray(white(name, image, number))
    size = round(picture.width * factor), round(picture.height * factor)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def cases() -> Iterator[tuple[str, Make]]:
    yield "clean", lambda image, _: image
    for name in ("gauss2", "gauss5", "gauss10", "gauss25", *PUBLISHED):
        yield f"independent {name}", partial(white, name)
    for radius_px in (0.5, 0.7, 1.0, 2.0):
        for sigma_255 in (25, 50, 100):
            yield f"sigma {sigma_255} blurred {radius_px} px", partial(filtered, blur(radius_px), sigma_255)
    for sigma_255 in (25, 50, 100):
        yield f"sigma {sigma_255} demosaiced", partial(filtered, demosaic, sigma_255)
    for name in STRONG:
        for factor in (0.5, 0.7, 1.5, 2.0):
            yield f"{name} resized {factor}x", partial(resized, factor, name)
        for quality in (75, 85, 95):
            yield f"{name} JPEG {quality}", partial(jpeg, quality, 2, name)
        yield f"{name} JPEG 95, full colour", partial(jpeg, 95, 0, name)


def image_sets(folders: list[Path]) -> dict[str, list[Pixels]]:
    pictures = [getattr(data, name)()[:CROP_PX, :CROP_PX] for name in PHOTOGRAPHS]
    starts = range(0, CROP_PX - CELL_PX, 2 * CELL_PX)
    cells = [p[y : y + CELL_PX, x : x + CELL_PX] for p in pictures for y in starts for x in starts]
    sets = {"scikit-image": pictures, f"{CELL_PX}-px cells": [cell for cell in cells if cell.shape[0] == CELL_PX]}
    for folder in folders:
        names = list_images(folder)
        sets[folder.name] = [np.asarray(load_rgb(folder / name)) for name in names[:: max(1, len(names) // 64)][:64]]
    return sets


def verdicts(sets: dict[str, list[Pixels]]) -> None:
    print(f"{'noise':30}", *(f"{f'{name} ({len(images)})':28}" for name, images in sets.items()))
    seconds = 0.0
    for case, make in cases():
        row = []
        for images in sets.values():
            noisy = [make(image, number).transpose(2, 0, 1) for number, image in enumerate(images)]
            start = time.process_time()
            found = correlation(noisy)
            seconds = max(seconds, time.process_time() - start)
            row.append(f"{found.verdict:11} {found.sigma_255:5.1f} {max(found.autocorrelation.values()):+.2f}")
        print(f"{case:30}", *(f"{text:28}" for text in row), flush=True)
    print(f"longest audit: {seconds:.2f} s of one core")


def levels(sets: dict[str, list[Pixels]]) -> None:
    """From noisy images alone, and beside it the truth, from the clean ones."""
    for name, images in sets.items():
        print(f"{name} ({len(images)}): noise | level, true | kind | bias at 40, true | at 215, true | SNR dB, true")
        with tempfile.TemporaryDirectory() as folder:
            clean, noisy = Path(folder, "clean"), Path(folder, "noisy")
            _save(clean, images)
            for noise in LEVELS:
                _save(noisy, [white(noise, image, number) for number, image in enumerate(images)])
                found, exact = (check(noisy, clean=c, workers=1, progress=False).noise for c in (None, clean))
                if found is not None and exact is not None:
                    print(_level_row(noise, found, exact), flush=True)


def _save(folder: Path, images: list[Pixels]) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png", compress_level=1)


def _level_row(noise: str, found: NoiseFindings, exact: NoiseFindings) -> str:
    if found.curve is None:
        return f"{noise:11} too small"
    grid = stored(parse(noise), np.linspace(0, 1, 513))
    means, first = np.unique(grid.mean, return_index=True)
    truth = np.interp(found.curve.mean_255 / 255, means, grid.std[first]) * 255
    level = np.sqrt(np.average(truth**2, weights=found.curve.patches))
    kind = "-" if found.kind is None else f"{found.kind.words}, {_closest(found.kind.fit.noise)}"
    pairs = [_bias_at(bias, x) for x in (40, 215) for bias in (found.bias, exact.bias)]
    snr = [f"{value:6.2f}" if value is not None else "     -" for value in (found.snr_db, exact.snr_db)]
    return f"{noise:11} {found.curve.sigma_255:6.1f} {level:6.1f}  {kind:36} {' '.join(pairs)} {' '.join(snr)}"


def _closest(noise: PixelNoise) -> str:
    if not isinstance(noise, PoissonGaussian):
        return noise.name
    return f"{1 / noise.a:.3g} photons, {255 * noise.b**0.5:.3g}" if noise.a > 0 else f"{255 * noise.b**0.5:.3g}"


def _bias_at(bias: Bias | None, intensity: float) -> str:
    return "    -" if bias is None else f"{at_intensities([intensity], bias)[0]:+5.0f}"


def speed(folders: list[Path]) -> None:
    """Interleaved; best of three."""
    for folder in folders:
        names = list_images(folder)
        best = dict.fromkeys(("decode, 1", "check, 1", "decode, 2", "check, 2"), float("inf"))
        for _ in range(3):
            for case in best:
                workers = int(case[-1])
                start = time.perf_counter()
                if case.startswith("decode"):
                    run_jobs(_Decode(folder), names, workers=workers, description=None)
                else:
                    check(folder, workers=workers, progress=False)
                best[case] = min(best[case], time.perf_counter() - start)
        rates = ", ".join(f"{case} process(es): {len(names) / seconds:.0f}/s" for case, seconds in best.items())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{folder.name} ({len(names)} images): {rates}; peak memory {peak:.0f} MiB")


@dataclass(frozen=True)
class _Decode:
    """What any check has to do at least; picklable."""

    root: Path

    def __call__(self, name: str) -> None:
        load_pixels(self.root / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--only", choices=("verdicts", "levels", "speed"))
    arguments = parser.parse_args()
    sets = image_sets(arguments.folders)
    parts = {
        "verdicts": lambda: verdicts(sets),
        "levels": lambda: levels(sets),
        "speed": lambda: speed(arguments.folders),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()


if __name__ == "__main__":
    main()
