"""What does `dinov2-noise embed` cost beside the plain way, and does its memory grow with the set?

Usage: python benchmarks/embed.py RUN [--images N] [--workers N]. N images (300 and 1,200) of 500 x 375 px, JPEG, are
made in a temporary folder: few different ones, linked. The plain way is a loop that opens an image, preprocesses it
(upstream's own transform) and shows it to the backbone, one by one, all features in a list; beside it the same with
batches of 64. Each row is a process of its own: images per second, seconds of the processor per 100 images, and the
peak of memory less what it was when the network stood.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dinov2_noise
from dinov2_noise.export import EmbedRequest, Features, embed

DIFFERENT, BATCH = 24, 64


def write_images(folder: Path, count: int) -> None:
    """Smooth colours with fine grain, as photographs have."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        path, first = folder / f"{number:06d}.jpg", folder / f"{number % DIFFERENT:06d}.jpg"
        if number >= DIFFERENT:
            os.link(first, path)
            continue
        coarse = Image.fromarray(rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) + rng.normal(0, 8, (375, 500, 3))
        Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def plain(features: Features, folder: Path, batch_size: int) -> None:
    """The loop that a user would write."""
    from dinov2.data.transforms import make_classification_eval_transform

    transform, paths, found = make_classification_eval_transform(), sorted(folder.iterdir()), []
    with torch.no_grad():
        for start in range(0, len(paths), batch_size):
            images = [transform(Image.open(path).convert("RGB")) for path in paths[start : start + batch_size]]
            found.append(features.backbone(torch.stack(images).to(features.device)).cpu())
    np.save(folder.parent / "plain.npy", torch.cat(found).numpy())


def measure(run: Path, folder: Path, way: str, workers: int) -> dict[str, float]:
    """One row, in this process."""
    features = dinov2_noise.load(run, "auto")
    features(Image.new("RGB", (64, 64)))
    out = folder.parent / f"{way}-{folder.name}-{workers}.parquet"
    ways: dict[str, Callable[[], object]] = {
        "one by one": lambda: plain(features, folder, 1),
        "in batches": lambda: plain(features, folder, BATCH),
        "embed": lambda: embed(EmbedRequest(images=[str(folder)], run=run, out=out, workers=workers)),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    ways[way]()
    n_images = len(list(folder.iterdir()))
    return {
        "rate": n_images / (time.perf_counter() - start),
        "cpu": (sum(os.times()[:4]) - cpu) / n_images * 100,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--images", type=int, nargs="+", default=[300, 1200])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        folder, way, workers = options.row
        print(json.dumps(measure(options.run, Path(folder), way, int(workers))))
        return
    print(f"{'':24} {'images':>7} {'images/s':>9} {'CPU s/100':>10} {'MB more':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        for count in options.images:
            folder = Path(temporary) / str(count)
            write_images(folder, count)
            rows = [("one by one", 0), ("in batches", 0), *(("embed", workers) for workers in options.workers)]
            for way, workers in rows:
                command = [sys.executable, __file__, str(options.run), "--row", str(folder), way, str(workers)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                title = f"{way}, {workers} workers" if way == "embed" else f"plain loop, {way}"
                print(
                    f"{title:24} {count:7,} {row['rate']:9.1f} {row['cpu']:10.2f} {row['megabytes']:8.0f}", flush=True
                )


if __name__ == "__main__":
    main()
