"""Images per second of `denoise apply` on noisy photographs of 500x375 px, and what each part of it gives.

The baseline is the published way: one image at a time, padded to a square, torch's default memory layout, and read,
compute and write one after the other. Parts are added one by one; "denoise apply" is the command's own function, one
image at a time and in batches of 16. First the pixels are compared: the command with the baseline's padding against the
baseline. Then all take turns in each round; the figures are medians over rounds, after one round that is not counted.
The first ratio is of wall-clock times, the second of processor times, for busy machines. Weights do not matter for
speed; they are drawn.
Usage: python benchmarks/denoise_apply.py [--device auto] [--count 8] [--rounds 5] [--precision fp32]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.files import list_images
from dinov2_noise.noise import add_noise
from neighbor2neighbor import UNet, load_checkpoint, padded_size, reflect_to, save_checkpoint, to_uint8

SIZE = (500, 375)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
BASELINE, FINAL = "one at a time, square padding", "denoise apply"


def photographs(folder: Path, count: int) -> None:
    """Crops of the scikit-image photographs, scaled to 500x375 px."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])())
        width = int(min(image.width, image.height * 4 / 3) * rng.uniform(0.6, 1))
        height = width * 3 // 4
        left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
        folder.mkdir(parents=True, exist_ok=True)
        image.crop((left, top, left + width, top + height)).resize(SIZE).save(folder / f"{number:05}.png")


def weights(path: Path) -> Path:
    """The published width, with an output in [0, 1] that depends on the image."""
    model = UNet(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.nin_c.weight /= 8
        model.nin_c.bias += 0.5  # type: ignore[operator]
    save_checkpoint(path, model)
    return path


@torch.no_grad()
def one_at_a_time(
    noisy: Path, output: Path, weights: Path, device: torch.device, *, padding: str, layout: torch.memory_format
) -> None:
    """Read, compute, write, and the next image."""
    model = load_checkpoint(weights).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    output.mkdir(parents=True)
    for name in list_images(noisy):
        image = torch.from_numpy(np.array(Image.open(noisy / name).convert("RGB"))).permute(2, 0, 1) / 255
        height, width = image.shape[1:]
        padded = reflect_to(image[None], padded_size(height, width, padding=padding)).contiguous(memory_format=layout)
        result = to_uint8(model(padded.to(device))[0, :, :height, :width]).cpu().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(result)).save(output / name, compress_level=1)


def compare(first: Path, second: Path) -> str:
    differences = np.concatenate(
        [
            np.abs(np.asarray(Image.open(first / name), int) - np.asarray(Image.open(second / name), int)).ravel()
            for name in list_images(first)
        ]
    )
    return f"largest difference {differences.max()} levels, {100 * np.mean(differences > 0):.4f} % of values differ"


def seconds(work: Callable[[Path], object], output: Path) -> np.ndarray:
    """Of the clock, and of the processor."""
    shutil.rmtree(output, ignore_errors=True)
    start = np.array([time.perf_counter(), time.process_time()])
    work(output)
    return np.array([time.perf_counter(), time.process_time()]) - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--count", type=int, help="images; by default 8, on a GPU 512")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="fp32", help="of the last two rows")
    options = parser.parse_args()
    device = choose_device(options.device)
    count = options.count or (512 if device.type == "cuda" else 8)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs(root / "clean", count)
        add_noise(root / "clean", root / "noisy", noise="gauss100", progress=False)
        report(root, device, weights(root / "weights.pth"), count, options.rounds, options.precision)


def report(root: Path, device: torch.device, file: Path, count: int, rounds: int, precision: str) -> None:
    noisy = root / "noisy"
    slow = partial(one_at_a_time, noisy, weights=file, device=device)
    fast = partial(apply_denoiser, noisy, weights=file, device=str(device), progress=False)
    variants: dict[str, Callable[[Path], object]] = {
        BASELINE: partial(slow, padding="square", layout=torch.contiguous_format),
        "+ each side to its own multiple": partial(slow, padding="sides", layout=torch.contiguous_format),
        "+ channels-last": partial(slow, padding="sides", layout=torch.channels_last),
        f"{FINAL}: + threads that read and write": partial(fast, batch_size=1, precision=precision),
        f"{FINAL} in batches of 16": partial(fast, batch_size=16, precision=precision),
    }
    variants[BASELINE](root / "expected")
    fast(root / "found", padding="square")
    print(f"pixels, both with square padding: {compare(root / 'expected', root / 'found')}")
    times: dict[str, list[np.ndarray]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, work in variants.items():
            taken = seconds(work, root / "output")
            if number > 0:
                times[name].append(taken)
    print(f"{device}, {torch.get_num_threads()} threads, {count} images of {SIZE[0]}x{SIZE[1]} px, {rounds} rounds")
    for name, taken in times.items():
        wall, processor = np.median(np.array(times[BASELINE]) / np.array(taken), axis=0)
        rate = count / np.median(np.array(taken), axis=0)[0]
        print(f"{name:50} {rate:8.2f} images/s  {wall:5.2f} x  {processor:5.2f} x")


if __name__ == "__main__":
    main()
