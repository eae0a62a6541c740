"""Milliseconds of processor time per 224-px image, each corruption at its slowest severity; ratio to reading the image.

"reading" decodes a JPEG of 600x400 px and makes the crop of 224 px; a corruption is timed from 8 bit to 8 bit. The last
line compares the displacement of glass_blur (severity 3) with the plain loop over pixels that it replaces, after
checking that both give the same.
Usage: OMP_NUM_THREADS=1 python benchmarks/corruptions.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from dinov2_noise.noise.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    Corruption,
    corrupted_uint8,
    standard_crop,
)
from dinov2_noise.noise.corruptions.blurs import glass_sources


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    """Median processor time of ``work`` after one call that is not counted; what else the machine does counts less."""
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def displaced_by_loop(image: np.ndarray, reach: int, offsets: np.ndarray) -> np.ndarray:
    """One round of glass_blur as defined: pixel after pixel, from the bottom right."""
    moved = image.copy()
    height, width = image.shape[:2]
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            down, right = offsets[row - reach - 1, column - reach - 1]
            moved[row, column] = moved[row + down, column + right]
    return moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    file = io.BytesIO()
    Image.fromarray(data.coffee()).save(file, format="JPEG", quality=90)

    def read() -> np.ndarray:
        return np.asarray(standard_crop(Image.open(io.BytesIO(file.getvalue())).convert("RGB")))

    image = read()
    reading = milliseconds(read, rounds)
    print(f"{'reading':20} {reading:7.1f} ms")
    for name in CORRUPTIONS + EXTRA_CORRUPTIONS:
        cells = [Corruption(name, severity) for severity in SEVERITIES]
        times = [
            milliseconds(lambda cell=cell: corrupted_uint8(image, cell, relative_path="a.jpg"), rounds)
            for cell in cells
        ]
        slowest = max(times)
        print(f"{name:20} {slowest:7.1f} ms  {slowest / reading:5.1f} x reading  (severity {1 + times.index(slowest)})")

    reach, side = 2, image.shape[0]
    offsets = np.random.default_rng(0).integers(-reach, reach, size=(side - 2 * reach, side - 2 * reach, 2))

    def by_pointers() -> np.ndarray:
        return image.reshape(-1, 3)[glass_sources(side, side, reach, offsets)].reshape(image.shape)

    assert np.array_equal(by_pointers(), displaced_by_loop(image, reach, offsets))
    ours, loop = milliseconds(by_pointers, rounds), milliseconds(lambda: displaced_by_loop(image, reach, offsets), 3)
    print(f"one round of displacement {ours:.1f} ms, as a loop {loop:.0f} ms: {loop / ours:.0f} times faster, equal")


if __name__ == "__main__":
    main()
