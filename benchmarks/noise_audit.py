"""How sure is the audit of noise? Prints its verdict for independent and for correlated noise on clean photographs.

Usage: python benchmarks/noise_audit.py [FOLDER]. Of each kind of noise: verdict, estimated level and largest
autocorrelation, on the photographs in scikit-image, on 64-px cells of them, and on up to 64 images of FOLDER (clean);
then the seconds of one audit. One to five minutes.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from skimage import data

from dinov2_noise.decoding import load_rgb
from dinov2_noise.files import list_images
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.audit import correlation

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Make = Callable[[Pixels, int], Pixels]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
PUBLISHED = ("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7", "speckle1.0")
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


def image_sets(folder: Path | None) -> dict[str, list[Pixels]]:
    pictures = [getattr(data, name)()[:CROP_PX, :CROP_PX] for name in PHOTOGRAPHS]
    starts = range(0, CROP_PX - CELL_PX, 2 * CELL_PX)
    cells = [p[y : y + CELL_PX, x : x + CELL_PX] for p in pictures for y in starts for x in starts]
    sets = {"scikit-image": pictures, f"{CELL_PX}-px cells": [cell for cell in cells if cell.shape[0] == CELL_PX]}
    if folder is not None:
        names = list_images(folder)
        sets[folder.name] = [np.asarray(load_rgb(folder / name)) for name in names[:: max(1, len(names) // 64)][:64]]
    return sets


def main() -> None:
    sets = image_sets(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
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


if __name__ == "__main__":
    main()
