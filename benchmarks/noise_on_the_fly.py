"""What does `noise=` in a dataset string cost a training's loader, next to reading noisy images from disk?

Usage: python benchmarks/noise_on_the_fly.py [FOLDER] [--images 64] [--repeats 3] [--workers 0 1 2] [--noises …]
       [--augmentation upstream|fast]

Both go through DINOv2's own augmentation (2 crops of 224 px, 8 of 96 px), or our faster one, and PyTorch's
DataLoader: photographs of 500x375 px as JPEG with noise added on the fly, and the PNG folder that `add-noise` makes of
them. The two take turns; of each the fastest of its repeats counts. With 0 workers processor time is measured instead
of the clock: what one worker does, also on a machine that others use. Pixels are compared. Prints a table in Markdown;
half a minute per row.
Images are those of FOLDER, else photographs in scikit-image.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from add_noise import make_source
from torch.utils.data import DataLoader

from dinov2_noise.data import PairedImages, make
from dinov2_noise.noise import add_noise
from dinov2_noise.torchvision_ops import declare_missing_ops

declare_missing_ops()

SIZE = (500, 375)
ALLOWED = 0.15


def main() -> None:
    chosen = options()
    from dinov2.data.augmentations import DataAugmentationDINO

    torch.set_num_threads(1)
    augment = DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), 8, global_crops_size=224, local_crops_size=96)
    augment.augmentation = chosen.augmentation
    print(f"{chosen.images} photographs of {SIZE[0]}x{SIZE[1]} px, best of {chosen.repeats}.\n")
    print("| noise | workers | PNG folder, images/s | on the fly, images/s | throughput lost |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean"
        make_source(chosen.folder, clean, SIZE, chosen.images)
        for noise in chosen.noises.split(","):
            stored = Path(folder) / noise
            add_noise(clean, stored, noise=noise, progress=False)
            sets = [
                make(f"ImageFolder:root={stored}", augment),
                make(f"ImageFolder:root={clean}:noise={noise}", augment),
            ]
            check_equal(*sets)
            for workers in chosen.workers:
                on_disk, on_the_fly = rates(sets, workers, chosen.repeats)
                lost = 1 - on_the_fly / on_disk
                mark = "" if lost < ALLOWED else " (more than 15 %)"
                print(f"| {noise} | {workers} | {on_disk:.1f} | {on_the_fly:.1f} | {lost:.1%}{mark} |", flush=True)


def rates(sets: list[Any], workers: int, repeats: int) -> list[float]:
    """Images per second of each, without the start of the workers."""
    loaders = [
        DataLoader(each, batch_size=8, num_workers=workers, persistent_workers=workers > 0, collate_fn=len)
        for each in sets
    ]
    clock = time.perf_counter if workers else time.process_time
    for loader in loaders:
        list(loader)
    seconds = [float("inf")] * len(loaders)
    for _ in range(repeats):
        for number, loader in enumerate(loaders):
            start = clock()
            count = sum(loader)
            seconds[number] = min(seconds[number], clock() - start)
    return [count / taken for taken in seconds]


def check_equal(stored: Any, on_the_fly: Any) -> None:
    assert isinstance(stored, PairedImages)
    for index in range(0, len(stored), 10):
        np.testing.assert_array_equal(np.asarray(stored.noisy(index)), np.asarray(on_the_fly.noisy(index)))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="clean photographs")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--augmentation", default="upstream", choices=("upstream", "fast"))
    parser.add_argument("--noises", default="gauss100,gauss255,shot3,speckle1.0")
    return parser.parse_args()


if __name__ == "__main__":
    main()
