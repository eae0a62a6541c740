"""What FastDINOv2's first stage saves: arithmetic, measured step time, and what its images cost to make.

Arithmetic is counted for ViT-S/16 and ViT-B/16 with 65,536 prototypes and 2x224 + 8x96 crops against 2x112 + 8x48.
Step times: one model per stage in one process, taking turns, so that a noisy machine is noisy for both; CPU time on a
CPU; medians, and the ratio of the rounds with the middle half of its values. Samples: decoding a JPEG photograph and
making its ten crops, with and without the noise patch; one core, CPU time. The last table tells from when on the
loader, not the network, bounds the first stage.

Usage: python benchmarks/fast_steps.py [--arch vit_small] [--batch 2] [--rounds 6] [--rate 40TFLOPs] [--images FOLDER]
The defaults take about 2 minutes of one CPU core. Without --images the photograph is one of scikit-image's (extra
`demo`), 512x512 px, as a JPEG of quality 95.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import step_time
import torch
from omegaconf import OmegaConf

from dinov2_noise import data
from dinov2_noise.augment.views import StagedViews
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.cost import Rate, parse_rate
from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.curriculum.sampler import Draw
from dinov2_noise.curriculum.stages import build
from dinov2_noise.upstream.estimate import load
from dinov2_noise.upstream.flops import StepCounter

LOW, FULL, N_LOCAL = Crops(112, 48, 16), Crops(224, 96, 16), 8
LOW_CROPS = {"crops": {"global_crops_size": LOW.global_px, "local_crops_size": LOW.local_px}}
PATCH = {"gaussian_patch": {"max_sigma": 0.5}}
# Crops and patch of each way to make a sample.
SAMPLES: dict[str, dict[str, Any]] = {
    "112 / 48 px": LOW_CROPS,
    "112 / 48 px, patch": LOW_CROPS | PATCH,
    "224 / 96 px": {},
    "224 / 96 px, patch": PATCH,
}
ARM = "FastDINOv2"
step_time.ARMS[ARM] = {
    "curriculum": {
        "stages": [
            {"name": "low resolution", "epochs": 1, "view": "noisy", **LOW_CROPS},
            {"name": "full resolution", "epochs": 1, "view": "noisy"},
        ]
    }
}


def print_flops() -> None:
    """GFLOPs per image and step, by part."""
    print(f"{'GFLOPs per image':24}{'student':>9}{'heads':>7}{'backward':>10}{'EMA teacher':>13}{'all':>8}{'ratio':>7}")
    for arch in ("vit_small", "vit_base"):
        counter = StepCounter(load("fast", [f"student.arch={arch}", "student.drop_path_rate=0"]))
        low = counter.step(LOW, anchored=False)
        for crops in (LOW, FULL):
            flops = counter.step(crops, anchored=False)
            parts = (flops.student, flops.student_heads, flops.backward, flops.teacher, flops.total)
            row = "".join(f"{part / 1e9:{width}.2f}" for part, width in zip(parts, (9, 7, 10, 13, 8), strict=True))
            print(f"{f'{arch}, {crops.shown}':24}{row}{flops.total / low.total:7.2f}")


class StageTrainer(step_time.Trainer):
    """A model past its first step in one stage of the arm; see `step_time.Trainer`."""

    def __init__(self, options: argparse.Namespace, stage: int) -> None:
        self._clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        self._model = step_time.build(options, ARM)
        self._optimizer = torch.optim.AdamW(self._model.get_params_groups(), lr=1e-5)
        sizes = [LOW.global_px, LOW.local_px, N_LOCAL] if stage == 0 else options.crops
        place = {"stage": stage, "number": stage * options.batch * 1250}
        self._images = step_time.batch(argparse.Namespace(batch=options.batch, crops=sizes), 0) | place
        self.step()


def measure_steps(options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of a step in either stage; prints them."""
    trainers = [StageTrainer(options, stage) for stage in (0, 1)]
    times: list[tuple[float, float]] = []
    for turn in range(options.rounds + 1):
        low, full = (trainer.step() for trainer in trainers)
        if turn:
            times.append((low, full))
    low, full = (statistics.median(values) for values in zip(*times, strict=True))
    first, middle, last = statistics.quantiles([full / low for low, full in times], n=4)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"\nstep of {options.arch}, batch {options.batch}, {options.rounds} rounds, {where}")
    print(f"first stage {low:.3f} s, second {full:.3f} s, ratio {middle:.2f} (middle half {first:.2f} - {last:.2f})")
    return low, full


def photographs(options: argparse.Namespace, scratch: Path) -> Path:
    """A folder of photographs."""
    if options.images is not None:
        return Path(options.images)
    from PIL import Image
    from skimage import data as skimage_data

    Image.fromarray(skimage_data.astronaut()).save(scratch / "astronaut.jpg", quality=95)
    return scratch


def measure_samples(root: Path, rounds: int) -> dict[str, float]:
    """Median CPU seconds to make a sample in each way, taking turns."""
    from dinov2.data.augmentations import DataAugmentationDINO

    transform = DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), N_LOCAL, global_crops_size=224, local_crops_size=96)
    source: Any = data.make(f"ImageFolder:root={root}", transform, None)
    stages = [{"name": name, "epochs": 1, "view": "noisy", **own} for name, own in SAMPLES.items()]
    # The last stage has the config's crops.
    config = parse_curriculum(OmegaConf.create({"stages": stages}), total_epochs=len(stages))
    views = StagedViews(build(config, 1, FULL), 0)
    times: dict[str, list[float]] = {name: [] for name in SAMPLES}
    for number in range(rounds):
        for stage, name in enumerate(SAMPLES):
            start = time.process_time()
            views(source, Draw(number % len(source), stage, number, "noisy", stage))
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def print_samples(seconds: dict[str, float], arch: str, rate: Rate) -> None:
    """Time per sample, and the cores that keep one GPU of this rate busy."""
    counter = StepCounter(load("fast", [f"student.arch={arch}", "student.drop_path_rate=0"]))
    print(f"\none sample, CPU time; cores for {arch} on a GPU that does {rate.flops_per_s / 1e12:g} TFLOP/s")
    for name, value in seconds.items():
        images_per_s = rate.flops_per_s / counter.step(LOW if name.startswith("112") else FULL, anchored=False).total
        print(f"{name:20}{value * 1e3:8.1f} ms{images_per_s:9.0f} images/s{images_per_s * value:7.1f} cores")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_small")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--prototypes", type=int, default=65536)
    parser.add_argument("--samples", type=int, default=40, help="samples to make in each way")
    parser.add_argument("--rate", default="40TFLOPs", help="of the GPU that the loader must keep busy")
    parser.add_argument("--images", help="folder of photographs for the loader")
    parser.set_defaults(crops=[FULL.global_px, FULL.local_px, N_LOCAL], drop_path=0.0)
    return parser.parse_args()


def main() -> None:
    options = parse()
    rate = parse_rate(options.rate)
    import dinov2.distributed as distributed

    print_flops()
    with tempfile.TemporaryDirectory() as scratch:
        samples = measure_samples(photographs(options, Path(scratch)), options.samples)
    distributed.enable(overwrite=True)
    measure_steps(options)
    print_samples(samples, options.arch, rate)


if __name__ == "__main__":
    main()
