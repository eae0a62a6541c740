"""What does a data set of ImageNet's size cost before its first image is read? Prints seconds, rates and peak memory.

Usage: python benchmarks/index.py [--images N] [--files N] [FOLDER]. N images with ImageNet's names (1,281,167 in 1000
classes, and 50,000 for validation) are listed in a text file; no image is made. From that list: `dinov2-noise index`,
beside a plain version that holds everything in memory (same bytes); then opening the data set in the ways there are.
With `--files` (50,000) so many empty files are made below FOLDER, for reading folders. Each row is a process of its
own: seconds, of which the processor worked for so many, and the peak of memory less what importing takes. Two to five
minutes.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dinov2_noise.data import build_index, check_pairs, make
from dinov2_noise.data.pairs import is_vouched_for
from dinov2_noise.files import OutputFolder, list_images

IMAGENET, CLASSES, VALIDATION = 1_281_167, 1000, 50_000


def names(n_images: int) -> Iterator[str]:
    """Paths with the look of ImageNet-1k's, in the order of a listing."""
    rng = random.Random(0)
    classes = sorted(f"n{number:08d}" for number in rng.sample(range(1_440_764, 15_075_142), CLASSES))
    for number, class_id in enumerate(classes):
        count = n_images // CLASSES + (number < n_images % CLASSES)
        yield from sorted(f"train/{class_id}/{class_id}_{i}.JPEG" for i in rng.sample(range(1, 20 * count + 2), count))
    n_validation = min(VALIDATION, n_images)
    for number, class_id in enumerate(classes):
        for image in range(number, n_validation, CLASSES):
            yield f"val/{class_id}/ILSVRC2012_val_{image + 1:08d}.JPEG"


def plain_index(root: Path, listing: Path, extra: Path) -> None:
    """Everything in memory, one list and one array after the other."""
    extra.mkdir(exist_ok=True)
    paths = listing.read_text().splitlines()
    classes = sorted({path.split("/")[1] for path in paths})
    index_of = {class_id: index for index, class_id in enumerate(classes)}
    for split in ("TRAIN", "VAL"):
        own = [path for path in paths if path.startswith(split.lower() + "/")]
        rows = []
        for path in own:
            class_id = path.split("/")[1]
            rows.append((int(Path(path).stem.rpartition("_")[2]), index_of[class_id], class_id, class_id))
        dtype = [("actual_index", "<u4"), ("class_index", "<u4"), ("class_id", "U9"), ("class_name", "U9")]
        np.save(extra / f"entries-{split}.npy", np.array(rows, dtype=dtype))
        np.save(extra / f"paths-{split}.npy", np.array([path.encode() for path in own]))


def _open(text: str) -> str:
    dataset = make(text)
    data = len(pickle.dumps(dataset))
    return f"{len(dataset):,} images, {data / 1e6:.1f} MB to each worker that is started afresh"


def _pairs(folder: Path) -> str:
    paths = list_images(folder / "files")
    start = time.perf_counter()
    check_pairs(iter(paths), folder / "files")
    return f"the check alone {time.perf_counter() - start:.2f} s"


def _vouched(folder: Path) -> str:
    paths = list_images(folder / "files")
    start = time.perf_counter()
    believed = is_vouched_for(folder / "files", folder / "files", len(paths), paths.__getitem__)
    return f"the check alone {time.perf_counter() - start:.2f} s, believed: {believed}"


def parts(folder: Path) -> dict[str, Callable[[], object]]:
    """The rows of the table."""
    root, listing, extra = folder / "root", folder / "listing.txt", folder / "root-extra"
    text, files = f"ImageNet:split=TRAIN:root={root}", folder / "files"
    return {
        "index, from the listing": lambda: build_index(root, progress=False, listing=listing),
        "index, all in memory": lambda: plain_index(root, listing, folder / "plain"),
        "open ImageNet:split=TRAIN": lambda: _open(text),
        "open …:subset=0.1": lambda: _open(f"{text}:subset=0.1"),
        "open …:subset=100 classes": lambda: _open(f"{text}:subset={folder}/classes.txt"),
        "open ImageFolder:…:list=": lambda: _open(f"ImageFolder:root={root}:list={extra}/listing.txt"),
        "open ImageFolder, reading folders": lambda: _open(f"ImageFolder:root={files}"),
        "index, folders, 1 thread": lambda: build_index(files, folder / "one", progress=False, workers=1),
        "index, folders, 16 threads": lambda: build_index(files, folder / "many", progress=False),
        "twins, all looked for": lambda: _pairs(folder),
        "twins, the manifest believed": lambda: _vouched(folder),
    }


def prepare(folder: Path, n_images: int, n_files: int) -> None:
    for split in ("train", "val"):
        (folder / "root" / split).mkdir(parents=True, exist_ok=True)
    with (folder / "listing.txt").open("w") as file:
        file.writelines(f"{name}\n" for name in names(n_images))
    classes = sorted({name.split("/")[1] for name in names(CLASSES)})
    (folder / "classes.txt").write_text("\n".join(classes[::10]) + "\n")
    output = OutputFolder(folder / "files", "denoise apply", {"source": str((folder / "files").resolve())})
    output.open()
    for name in names(n_files):
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    output.close(images=n_files + min(n_files, VALIDATION))


def measure(folder: Path, part: str) -> None:
    """Run one row in this process; print what it took as JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    found = parts(folder)[part]()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "busy": busy, "mb": (peak - before) / 1024, "found": str(found)}))


def run(folder: Path, part: str) -> dict[str, float | str]:
    command = [sys.executable, __file__, str(folder), "--part", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=IMAGENET)
    parser.add_argument("--files", type=int, default=VALIDATION)
    parser.add_argument("--part")
    options = parser.parse_args()
    if options.part:
        measure(options.folder, options.part)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        prepare(folder, options.images, options.files)
        entries = sum(1 for _ in (folder / "listing.txt").open())
        results = {}
        for part in parts(folder):
            results[part] = result = run(folder, part)
            rate = f"{entries / float(result['seconds']):,.0f} entries/s" if part.startswith("index,") else ""
            if "folders" in part:
                n_files = options.files + min(options.files, VALIDATION)
                rate = f"{n_files / float(result['seconds']):,.0f} files/s"
            took = f"{result['seconds']:8.2f} s ({result['busy']:.2f}){result['mb']:8.0f} MB"
            print(f"{part:36}{took}  {rate}  {result['found']}", flush=True)
        ours, plain = (results[f"index, {kind}"]["busy"] for kind in ("from the listing", "all in memory"))
        equal = all(
            (folder / "plain" / file).read_bytes() == (folder / "root-extra" / file).read_bytes()
            for file in (f"{kind}-{split}.npy" for kind in ("entries", "paths") for split in ("TRAIN", "VAL"))
        )
        print(f"processor's seconds, ours / all in memory: {float(ours) / float(plain):.2f}; files equal: {equal}")


if __name__ == "__main__":
    main()
