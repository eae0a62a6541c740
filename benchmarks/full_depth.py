"""What ``depth=full`` costs: 16-bit frames read, cropped and made ready for evaluation, against the same in 8 bits.

The arms take turns; each image is done several times and the fastest counts, so that other work on the machine weighs
little. One thread, CPU time. Frames are photographs of scikit-image's (extra `demo`) as 16-bit TIFF, gray and RGB.

Usage: python benchmarks/full_depth.py [--size 500 375] [--range asinh]
About half a minute of one CPU core.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import tifffile
import torch
from PIL import Image

from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.curriculum.sections import LoaderConfig
from dinov2_noise.data import PairedImages, make
from dinov2_noise.upstream import runtime

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
SCALES = ((0.32, 1.0), (0.05, 0.32), 8)
CROPS_PX = (224, 96)
DEPTHS = {"8 bit": "", "full": ":depth=full"}
PARTS = ("read", "two global and eight local crops", "both", "evaluation")


def write_frames(folder: Path, size: tuple[int, int]) -> None:
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)()).resize(size, Image.Resampling.LANCZOS)
        for kind, mode in (("gray", "L"), ("rgb", "RGB")):
            (folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(folder / kind / f"{name}.tif", np.asarray(image.convert(mode)).astype(np.uint16) * 257)


def arms(text: str) -> dict[str, dict[str, Callable[[int], Any]]]:
    """By part, then by depth: from an image's number to what is made of it."""
    from dinov2.data.augmentations import DataAugmentationDINO
    from dinov2.data.transforms import make_classification_eval_transform

    runtime.start(None, LoaderConfig("fast"))
    augmentation = DataAugmentationDINO(*SCALES, *CROPS_PX)
    found: dict[str, dict[str, Callable[[int], Any]]] = {part: {} for part in PARTS}
    for depth, key in DEPTHS.items():
        images, evaluated = make(text + key), make(text + key, make_classification_eval_transform())
        assert isinstance(images, PairedImages)
        read = images.noisy_pixels if images.full_depth else images.noisy
        kept = [read(index) for index in range(len(PHOTOGRAPHS))]
        found["read"][depth] = read
        found[PARTS[1]][depth] = partial(_cropped, augmentation, kept.__getitem__)
        found["both"][depth] = partial(_cropped, augmentation, read)
        found["evaluation"][depth] = evaluated.__getitem__
    return found


def _cropped(augmentation: Any, read: Callable[[int], Any], index: int) -> Any:
    return augmentation(read(index))


def milliseconds(make_one: dict[str, Callable[[int], Any]], repeat: int) -> dict[str, float]:
    """By depth, mean over the images."""
    times: dict[str, list[float]] = {depth: [] for depth in make_one}
    for index in range(len(PHOTOGRAPHS)):
        best = dict.fromkeys(make_one, float("inf"))
        for _ in range(repeat):
            for depth, one in make_one.items():
                with rng_scope(index):
                    start = time.process_time()
                    one(index)
                    best[depth] = min(best[depth], time.process_time() - start)
        for depth, seconds in best.items():
            times[depth].append(1e3 * seconds)
    return {depth: statistics.mean(values) for depth, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=2, default=[500, 375], help="width and height in pixels")
    parser.add_argument("--range", default="asinh", help="as in a dataset string")
    parser.add_argument("--repeat", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("dinov2").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        write_frames(Path(scratch), options.size)
        print("| ms per image | 8 bit | full | ratio |\n| --- | ---: | ---: | ---: |")
        for kind in ("gray", "rgb"):
            for part, one in arms(f"ImageFolder:root={scratch}/{kind}:range={options.range}").items():
                took = milliseconds(one, options.repeat)
                ratio = took["full"] / took["8 bit"]
                print(f"| {kind}, {part} | {took['8 bit']:.1f} | {took['full']:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
