"""What a sample costs to make, per image and loader worker: upstream's augmentation and ours, with and without a twin.

Every arm makes the same samples: decoding, then two global and eight local crops, with a twin two more global ones. The
paired arm of upstream's applies each of its transforms a second time on the same draws, as the published code does.
The arms take turns image by image; each image is done several times and the fastest counts, so that other work on the
machine weighs little. One thread, CPU time.

Then a profile of both, and images per second through upstream's loader, its collate and masks.

Usage: python benchmarks/loader.py [--images FOLDER] [--crops 112 48] [--workers 1 2] [--step]
Without --images the photographs are scikit-image's (extra `demo`), 500x375 px, JPEG of quality 92. About 2 minutes of
one CPU core, with --step (a ViT-S training step on this machine) 3.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from dinov2_noise.augment import fast
from dinov2_noise.augment.draws import Draws
from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.augment.views import Views
from dinov2_noise.curriculum.sections import LoaderConfig
from dinov2_noise.files import list_images
from dinov2_noise.noise import parse
from dinov2_noise.noise.seeding import noisy_uint8
from dinov2_noise.upstream import runtime

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
SCALES = ((0.32, 1.0), (0.05, 0.32), 8)
NOISE = "gauss255"
AUGMENTATIONS = ("upstream", "fast")
LAST = ("the rest", "all")
# Part of the profile → where upstream's chain, and ours, does it.
THEIRS = {
    "crop and resize": ("resized_crop",),
    "brightness, contrast, saturation": ("adjust_brightness", "adjust_contrast", "adjust_saturation"),
    "hue": ("adjust_hue",),
    "grey, solarise, flip": ("rgb_to_grayscale", "solarize", "hflip"),
    "blur": ("gaussian_blur",),
    "to tensor, normalise": ("to_tensor", "normalize"),
}
OURS = {
    "brightness, contrast, saturation": ("brightness", "contrast", "saturation"),
    "hue": ("hue",),
    "grey, solarise, flip": ("grayscale", "solarize"),
    "blur": ("blur",),
}


def photographs(options: argparse.Namespace, scratch: Path) -> list[Path]:
    """JPEG files of the size asked for."""
    if options.images is None:
        import skimage.data

        images = {name: Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS}
    else:
        root = Path(options.images)
        images = {name.replace("/", "-"): decoded(root / name) for name in list_images(root)}
    for name, image in images.items():
        image.resize(options.size, Image.Resampling.LANCZOS).save(scratch / f"{name}.jpg", quality=92)
    return sorted(scratch.glob("*.jpg"))


def decoded(path: Path) -> Image.Image:
    """As upstream's datasets decode."""
    with Image.open(path) as image:
        return image.convert("RGB")


def augmentation(name: str, crops_px: list[int]) -> Any:
    """`DataAugmentationDINO` of this kind."""
    from dinov2.data.augmentations import DataAugmentationDINO

    runtime.start(None, LoaderConfig(name))
    return DataAugmentationDINO(*SCALES, *crops_px)


def arms(crops_px: list[int]) -> dict[str, Callable[[Path], Any]]:
    """What is compared; the twin is decoded too."""
    theirs, ours = augmentation("upstream", crops_px), augmentation("fast", crops_px)
    own: Any = type(theirs).__mro__[1](*SCALES, *crops_px)
    return {
        "upstream": lambda path: own(decoded(path)),
        "upstream, each transform twice (published pairing)": lambda path: theirs(Views(decoded(path), decoded(path))),
        "fast": lambda path: ours(decoded(path)),
        "fast, paired": lambda path: ours(Views(decoded(path), decoded(path))),
    }


def measure(paths: list[Path], options: argparse.Namespace) -> dict[str, float]:
    """Mean over images and draws of the fastest of some repetitions, CPU seconds, by arm."""
    of = arms(options.crops)
    times: dict[str, list[float]] = {name: [] for name in of}
    for number in range(options.samples):
        best = dict.fromkeys(of, float("inf"))
        for _ in range(options.repeat):
            for name, make in of.items():
                with rng_scope(number):
                    start = time.process_time()
                    make(paths[number % len(paths)])
                    best[name] = min(best[name], time.process_time() - start)
        for name, seconds in best.items():
            times[name].append(seconds)
    return {name: statistics.mean(values) for name, values in times.items()}


class Stopwatch:
    """CPU seconds spent in named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            made = function(*arguments, **options)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - start
            return made

        return call

    def watching(self, holder: Any, name: str, part: str) -> Any:
        """A context in which the function ``name`` of a module, class or dictionary is timed."""
        if isinstance(holder, dict):
            return patch.dict(holder, {name: self.timed(part, holder[name])})
        return patch.object(holder, name, self.timed(part, getattr(holder, name)))


def profile(paths: list[Path], options: argparse.Namespace, name: str) -> dict[str, float]:
    """Seconds per image and part, unpaired."""
    from torchvision.transforms import functional

    transform, watch = augmentation(name, options.crops), Stopwatch()
    with ExitStack() as stack:
        if name == "upstream":
            targets = [(functional, function, part) for part, names in THEIRS.items() for function in names]
        else:
            changes: Any = fast._CHANGES
            targets = [(changes, function, part) for part, names in OURS.items() for function in names]
            targets += [(fast, "crop", "crop and resize"), (fast, "normalise", "to tensor, normalise")]
            targets += [(Draws, "draw", "random draws"), (fast, "pixels_of", "picture to array")]
        for target in targets:
            stack.enter_context(watch.watching(*target))
        whole = watch.timed("all", lambda path: transform(watch.timed("decoding", decoded)(path)))
        total: Counter[str] = Counter()
        for number in range(options.samples):
            found = []
            for _ in range(options.repeat):
                watch.seconds = {}
                with rng_scope(number):
                    whole(paths[number % len(paths)])
                found.append(watch.seconds)
            total.update(min(found, key=lambda seconds: seconds["all"]))
    total["the rest"] = 2 * total["all"] - sum(total.values())  # "all" holds the other parts
    return {part: value / options.samples for part, value in total.items()}


def others(paths: list[Path], options: argparse.Namespace) -> dict[str, float]:
    """Seconds per image of what stands around the augmentation."""
    pixels = np.asarray(decoded(paths[0]))
    make, gather = augmentation("fast", options.crops), collate(options.crops[0])
    batch = [(make(decoded(paths[number % len(paths)])), ()) for number in range(16)]
    works: dict[str, Callable[[], Any]] = {
        f"noise on the fly ({NOISE})": lambda: noisy_uint8(pixels, parse(NOISE), relative_path="a.jpg"),
        "collate, with masks": lambda: gather(batch),
        "seeding and restoring the generators": rng_scope(1)(int),
    }
    best = dict.fromkeys(works, float("inf"))
    for _, (name, work) in itertools.product(range(20), works.items()):
        with rng_scope(0):
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    return {name: seconds / (len(batch) if name.startswith("collate") else 1) for name, seconds in best.items()}


def collate(global_px: int) -> Callable[..., Any]:
    """Upstream's, for patches of 16 px."""
    from dinov2.data import MaskingGenerator, collate_data_and_cast

    side = global_px // 16
    return partial(
        collate_data_and_cast,
        mask_ratio_tuple=(0.1, 0.5),
        mask_probability=0.5,
        n_tokens=side**2,
        mask_generator=MaskingGenerator(input_size=(side, side), max_num_patches=0.5 * side * side),
        dtype=torch.float32,
    )


def throughput(folder: Path, options: argparse.Namespace, name: str, workers: int) -> float:
    """Images per second of wall time through upstream's loader, once its workers are warm."""
    from dinov2.data import SamplerType, make_data_loader, make_dataset

    of = {"transform": augmentation(name, options.crops), "target_transform": None}
    dataset = make_dataset(dataset_str=f"ImageFolder:root={folder}", **of)
    loader = make_data_loader(
        dataset=dataset,
        batch_size=8,
        num_workers=workers,
        sampler_type=SamplerType.INFINITE,
        collate_fn=collate(options.crops[0]),
    )
    batches = iter(loader)
    list(itertools.islice(batches, 2 * workers))
    start, count = time.perf_counter(), 6 * workers
    list(itertools.islice(batches, count))
    return 8 * count / (time.perf_counter() - start)


def step_seconds() -> float:
    """A ViT-S training step on this machine, per image."""
    import dinov2.distributed as distributed
    import step_time

    distributed.enable(overwrite=True)
    options = argparse.Namespace(**step_time.VIT_S, drop_path=0.0, cpu_time=False)
    trainer = step_time.Trainer(options, "plain")
    return min(trainer.step() for _ in range(3)) / options.batch


def print_arms(seconds: dict[str, float], options: argparse.Namespace) -> None:
    print(f"\n{options.size[0]}x{options.size[1]} px, crops 2x{options.crops[0]} + 8x{options.crops[1]}\n")
    print("| | ms per image | of upstream's |\n| --- | ---: | ---: |")
    for name, value in seconds.items():
        print(f"| {name} | {1e3 * value:.1f} | {value / seconds['upstream']:.2f} |")


def print_profile(profiles: dict[str, dict[str, float]], around: dict[str, float]) -> None:
    print("\n| part, ms per image | upstream | fast |\n| --- | ---: | ---: |")
    first = profiles["upstream"]
    parts = [part for part in dict.fromkeys(itertools.chain(*profiles.values())) if part not in LAST]
    for part in [*sorted(parts, key=lambda part: -first.get(part, 0)), *LAST]:
        cells = [f"{1e3 * found[part]:.2f}" if part in found else "" for found in profiles.values()]
        print(f"| {part} | {' | '.join(cells)} |")
    for part, value in around.items():
        print(f"| {part} | {1e3 * value:.2f} | {1e3 * value:.2f} |")


def print_throughput(folder: Path, options: argparse.Namespace) -> None:
    print("\n| images/s, loader workers | upstream | fast |\n| --- | ---: | ---: |")
    for workers in options.workers:
        rates = [max(throughput(folder, options, name, workers) for _ in range(2)) for name in AUGMENTATIONS]
        print(f"| {workers} | {' | '.join(f'{rate:.0f}' for rate in rates)} |")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="folder of photographs")
    parser.add_argument("--size", type=int, nargs=2, default=[500, 375], help="width and height in pixels")
    parser.add_argument("--crops", type=int, nargs=2, default=[224, 96], help="sides of global and local crops")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--record", help="file for the profile, which docs/figures/loader.py draws")
    parser.add_argument("--step", action="store_true", help="also a training step of ViT-S")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    logging.getLogger("dinov2").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="'pin_memory' argument")
    with tempfile.TemporaryDirectory() as scratch:
        paths = photographs(options, Path(scratch))
        print_arms(measure(paths, options), options)
        profiles = {name: profile(paths, options, name) for name in AUGMENTATIONS}
        print_profile(profiles, others(paths, options))
        if options.workers:
            print_throughput(Path(scratch), options)
    if options.record:
        Path(options.record).write_text(json.dumps(profiles, indent=1), encoding="utf-8")
    if options.step:
        print(f"\nA training step of ViT-S takes {step_seconds():.2f} s per image here.")


if __name__ == "__main__":
    main()
