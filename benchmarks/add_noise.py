"""How fast is `add-noise`, against the published way of doing it? Prints a table in Markdown.

Usage: python benchmarks/add_noise.py [FOLDER] [--images 100] [--repeats 3] [--noises gauss100,…] [--sizes 500x375,…]

The baseline is what the published data were made with: NumPy's noise on whole images, a pool of 2 threads, Pillow's PNG
as it is by default (level 6). Ours is the whole of `add_noise`, with listing, manifest and the start of its processes:
PNG and lossless WebP, with 1 and 2 workers. All variants take turns; of each the fastest of its repeats counts. On a
machine that others use too, look at the processor time (of all threads and processes) rather than at the clock. The
pixels are compared. Images are those of FOLDER, else photographs in scikit-image, cut to each size and saved as JPEG
(quality 92). A minute per noise and size.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage import data

from dinov2_noise.decoding import load_rgb
from dinov2_noise.files import list_images
from dinov2_noise.noise import Gaussian, NoiseModel, Shot, Speckle, add_noise, image_seed, output_name, parse

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry")
BASELINE = "published: threads, PNG level 6"
Floats = NDArray[np.float64]


def main() -> None:
    chosen = options()
    print(f"{chosen.images} images, best of {chosen.repeats}; MB are 10^6 bytes; raw: 8-bit pixels.\n")
    print(
        "| noise | size | variant | images/s | MB/s raw | MB/s written | times the baseline | CPU ms/image | by CPU |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in chosen.sizes.split(","):
            width, height = map(int, size.split("x"))
            source = Path(folder) / size
            make_source(chosen.folder, source, (width, height), chosen.images)
            for noise in chosen.noises.split(","):
                compare(source, Path(folder) / "out", parse(noise), size, chosen.repeats)


def compare(source: Path, out: Path, noise: NoiseModel, size: str, repeats: int) -> None:
    """Print the rows of one noise at one size."""
    variants: dict[str, Callable[[Path], object]] = {BASELINE: partial(published, source, noise=noise)}
    for image_format in ("png", "webp"):
        for workers in (1, 2):
            name = f"add-noise, {image_format}, {workers} worker{'s' if workers > 1 else ''}"
            variants[name] = partial(
                add_noise, source, noise=noise, workers=workers, image_format=image_format, progress=False
            )
    seconds, sizes = dict.fromkeys(variants, float("inf")), {}
    busy = dict(seconds)
    for _ in range(repeats):
        for name, run in variants.items():
            start, used = time.perf_counter(), processor_seconds()
            run(out / name)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            busy[name] = min(busy[name], processor_seconds() - used)
            sizes[name] = sum((out / name / path).stat().st_size for path in list_images(out / name))
            if name != BASELINE:
                check_equal(source, out / BASELINE, out / name, "webp" if "webp" in name else "png")
                shutil.rmtree(out / name)
        shutil.rmtree(out)
    names = list_images(source)
    raw = sum(3 * width * height for width, height in (load_rgb(source / name).size for name in names))
    for name, taken in seconds.items():
        ratio = seconds[BASELINE] / taken
        rates = (len(names) / taken, raw / taken / 1e6, sizes[name] / taken / 1e6)
        row = f"| {noise.name} | {size} | {name} | {rates[0]:.0f} | {rates[1]:.1f} | {rates[2]:.1f} | {ratio:.2f} |"
        print(f"{row} {1000 * busy[name] / len(names):.2f} | {busy[BASELINE] / busy[name]:.2f} |")
    for image_format in ("png", "webp"):
        one, two = (seconds[f"add-noise, {image_format}, {workers}"] for workers in ("1 worker", "2 workers"))
        print(
            f"| {noise.name} | {size} | {image_format}: 2 workers against 1 | | | | {one / two:.2f} | | |", flush=True
        )


def processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def published(source: Path, destination: Path, noise: NoiseModel) -> None:
    """The same noise as the published data's authors made it, in two threads."""
    destination.mkdir(parents=True)

    def make(name: str) -> None:
        image = np.asarray(Image.open(source / name).convert("RGB")).astype(np.float64) / 255
        noisy = np.clip(plain(noise, image, np.random.default_rng(image_seed(name))), 0, 1) * 255
        Image.fromarray(noisy.astype(np.uint8)).save(destination / output_name(name))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, list_images(source)))


def plain(noise: NoiseModel, image: Floats, rng: np.random.Generator) -> Floats:
    """Not clipped; the three published noises."""
    if isinstance(noise, Gaussian):
        return image + rng.normal(size=image.shape, scale=noise.sigma_255 / 255)
    if isinstance(noise, Shot):
        return rng.poisson(image * noise.photons) / noise.photons
    assert isinstance(noise, Speckle)
    return image + image * rng.normal(size=image.shape, scale=noise.sigma)


def check_equal(source: Path, one: Path, other: Path, image_format: str) -> None:
    """Every 20th image."""
    for name in list_images(source)[::20]:
        expected = np.asarray(load_rgb(one / output_name(name)))
        np.testing.assert_array_equal(np.asarray(load_rgb(other / output_name(name, image_format))), expected)


def make_source(folder: Path | None, source: Path, size: tuple[int, int], count: int) -> None:
    """``count`` JPEG files of one size, cut from photographs."""
    source.mkdir()
    if folder is None:
        photographs = [Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS]
    else:
        photographs = [load_rgb(folder / name) for name in list_images(folder)[:count]]
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        turned = ImageOps.mirror(photograph) if number // len(photographs) % 2 else photograph
        ImageOps.fit(turned, size, Image.Resampling.BICUBIC).save(source / f"{number:05d}.jpg", quality=92)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="clean photographs")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--noises", default="gauss100,gauss255,shot3,speckle1.0")
    parser.add_argument("--sizes", default="224x224,500x375")
    return parser.parse_args()


if __name__ == "__main__":
    main()
