"""What the monitoring of docs/monitoring.md costs a run, in one process: medians, and their ratio to a training step.

Steps, and what is added to each, take turns with measurements, so that a noisy machine is noisy for all of them.
"ordinary" is what is added to a step at which nothing is measured, curves and the console line included; a measurement
is one of ``evaluation.eval_period_iterations``. The last line is the whole share of a run with the given period, and
the period from which on ``monitor.max_time_share`` leaves no measurement out.
Usage: python benchmarks/monitor_cost.py [--arch vit_tiny] [--batch 8] [--crops 64 32 4] [--images 500] [--cpu-time]
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import step_time
import torch
from PIL import Image
from watch_cost import train_step

from dinov2_noise.data import build_index
from dinov2_noise.noise import add_noise
from dinov2_noise.upstream import runtime

LOSSES = ("total_loss", "dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss", "ibot_loss")


def write_images(folder: Path, options: argparse.Namespace) -> None:
    """Classes of blurred random squares, for training and validation, clean and noisy."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(options.images):
            path = folder / "clean" / split / f"n{number % 10}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((options.crops[0],) * 2, Image.Resampling.BICUBIC).save(path, compress_level=1)
    add_noise(folder / "clean", folder / "noisy", noise="gauss100", progress=False)
    for name in ("clean", "noisy"):
        build_index(folder / name, progress=False)


def configure(run: runtime.Run, folder: Path, options: argparse.Namespace) -> None:
    """Labelled images, clean and noisy, and unlabelled ones: ``--images`` of each."""
    from dinov2_noise.curriculum.sections import MonitorConfig

    cfg, strings = run.cfg, {}
    for key in ("train", "val"):
        strings[key] = f"ImageNet:split={key.upper()}:root={folder / 'noisy'}"
    counts = {"n_train": options.images, "n_val": options.images, "n_images": options.images}
    run.monitor = MonitorConfig(**strings, clean=str(folder / "clean"), **counts)
    cfg.train.dataset_path, cfg.train.output_dir = strings["train"], str(folder)
    cfg.evaluation.eval_period_iterations = 10**9  # measured below, one by one


def compare(model: Any, run: runtime.Run, images: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, of what is added to it, and of a measurement; and those of reading the images."""
    from dinov2.logging import MetricLogger

    from dinov2_noise.upstream.train.monitored import Monitoring

    monitoring = run.monitoring = Monitoring(run, model)
    metrics = MetricLogger(output_file=str(Path(run.cfg.train.output_dir) / "training_metrics.json"))
    optimizer = torch.optim.AdamW(model.get_params_groups(), lr=1e-5)
    times: dict[str, list[float]] = {"step": [], "ordinary": [], "measurement": []}
    values = dict.fromkeys(LOSSES, 1.0)
    ordinary = 100  # steps: with 10 lines in upstream's log and one of ours
    steps = metrics.log_every(repeat(images), 10, "Training", 10**6, 0)
    reading = timed(lambda: next(steps), options)
    train_step(model, optimizer, images)
    stage = run.curriculum.stages[0]
    for _ in range(options.rounds):
        for _ in range(3):
            times["step"].append(timed(lambda: train_step(model, optimizer, images), options))
        times["ordinary"].append(timed(lambda: follow(steps, metrics, values, ordinary), options) / ordinary)
        times["measurement"].append(timed(lambda: monitoring._measure(monitoring._iteration, stage), options))
    run.monitoring = None
    plain = MetricLogger(output_file=str(Path(run.cfg.train.output_dir) / "plain.json"))
    bare = timed(lambda: follow_bare(plain, values, ordinary), options) / ordinary
    found = {name: statistics.median(seconds) for name, seconds in times.items()}
    return found | {"ordinary": max(found["ordinary"] - bare, 0.0), "reading": reading}


def timed(work: Any, options: argparse.Namespace) -> float:
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.cuda.synchronize()
    start = clock()
    work()
    torch.cuda.synchronize()
    return clock() - start


def follow(steps: Any, metrics: Any, values: dict[str, float], count: int) -> None:
    """What upstream's loop does with its log, ``count`` times."""
    for _ in range(count):
        metrics.update(lr=1e-4)
        metrics.update(**values)
        next(steps)


def follow_bare(metrics: Any, values: dict[str, float], count: int) -> None:
    """The same without monitoring; upstream's log goes to the same places."""
    steps = metrics.log_every(repeat(None), 10, "Training", 10**6, 0)
    next(steps)
    follow(steps, metrics, values, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, nargs=3, default=[64, 32, 4], help="global px, local px, local crops")
    parser.add_argument("--prototypes", type=int, default=512)
    parser.add_argument("--drop-path", type=float, default=0.0)
    parser.add_argument("--images", type=int, default=500, help="for training, for validation, and unlabelled, each")
    parser.add_argument("--period", type=int, default=1000, help="evaluation.eval_period_iterations")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, for a machine in use (CPU)")
    options = parser.parse_args()

    import dinov2.distributed as distributed

    distributed.enable(overwrite=True)
    model = step_time.build(options, "NC")
    run = runtime.current()
    assert run is not None
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options)
        configure(run, Path(folder), options)
        found = compare(model, run, step_time.batch(options, 0), options)
    cpu = " of CPU seconds" if options.cpu_time else ""
    step, share = found["step"], run.monitor.max_time_share
    print(f"{options.arch}, batch {options.batch}, crops {options.crops}, {options.rounds} rounds, medians{cpu}")
    print(f"step           {step * 1e3:9.2f} ms")
    print(f"ordinary       {found['ordinary'] * 1e3:9.3f} ms   {found['ordinary'] / step:8.3%} of a step")
    shown = (
        f"{5 * options.images} pictures: {options.images} unlabelled, {options.images} + {options.images} in 2 views"
    )
    print(f"a measurement  {found['measurement'] * 1e3:9.0f} ms   {found['measurement'] / step:8.1f} steps ({shown})")
    print(f"reading them   {found['reading'] * 1e3:9.0f} ms   {found['reading'] / step:8.1f} steps, once")
    whole = (found["ordinary"] + found["measurement"] / options.period) / step
    least = math.ceil(found["measurement"] / step / share)
    print(
        f"every {options.period} steps: {whole:.2%} of the run; within max_time_share {share:g} from {least} steps on"
    )


if __name__ == "__main__":
    main()
