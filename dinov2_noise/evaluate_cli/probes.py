"""``evaluate linear`` and ``evaluate knn``: how well labels of your own can be told from the features of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluate_cli.common import BatchSize, Device, Geometry, LoaderWorkers, console
from dinov2_noise.evaluate_cli.model import open_model
from dinov2_noise.evaluate_cli.probe_job import Images, Job

Train = Annotated[str, typer.Option(help="Labelled images: class folders, a CSV (path,label) or a dataset string.")]
Output = Annotated[Path, typer.Option(help="Folder for results and kept features; the same command continues there.")]
Val = Annotated[str | None, typer.Option(help="Images to test on; without it a part of --train.")]
Run = Annotated[Path | None, typer.Option(help="Folder of a training run, or its teacher_checkpoint.pth.")]
ConfigFile = Annotated[Path | None, typer.Option(help="In place of --run: config.yaml of the run,")]
WeightsFile = Annotated[Path | None, typer.Option(help="and its eval/training_…/teacher_checkpoint.pth.")]
Noise = Annotated[str, typer.Option(help="clean, noises or corruptions, such as clean,gauss100,fog/3.")]
TrainNoise = Annotated[str, typer.Option(help="Of the training images: same as --noise, or one such name.")]
NoiseSeed = Annotated[int, typer.Option(help="Base seed of the noise.")]
Root = Annotated[Path | None, typer.Option(help="What paths of CSV files are relative to; by default their folder.")]
Fraction = Annotated[float, typer.Option(help="Without --val: part of each class that is tested.")]
Folds = Annotated[int, typer.Option(help="Without --val: cross-validation in so many parts.")]
Seed = Annotated[int, typer.Option(help="Of splits and of resampling.")]
Arm = Annotated[str, typer.Option(help="Of the model, in records; by default the run's folder.")]
RandomFloor = Annotated[bool, typer.Option("--random-floor", help="Also probe the network with random weights.")]
AllowLeak = Annotated[bool, typer.Option("--allow-leak", help="Go on where images are in both sets.")]
Upstream = Annotated[bool, typer.Option("--upstream", help="Run upstream's own script, and read its result.")]
Options = Annotated[str, typer.Option(help="Further options of upstream's script, with --upstream.")]


def linear(
    train: Train,
    output: Output,
    val: Val = None,
    run: Run = None,
    config_file: ConfigFile = None,
    weights: WeightsFile = None,
    noise: Noise = "clean",
    train_noise: TrainNoise = "same",
    noise_seed: NoiseSeed = 42,
    root: Root = None,
    val_fraction: Fraction = 0.2,
    folds: Folds = 0,
    blocks: Annotated[int, typer.Option(help="Last blocks whose class tokens are read, 1 to 4.")] = 1,
    average_pool: Annotated[bool, typer.Option(help="Also read the mean patch token.")] = True,
    seed: Seed = 0,
    arm: Arm = "",
    random_floor: RandomFloor = False,
    allow_leak: AllowLeak = False,
    upstream: Upstream = False,
    upstream_options: Options = "",
    batch_size: BatchSize = 128,
    workers: LoaderWorkers = 4,
    device: Device = "auto",
    geometry: Geometry = "upstream",
) -> None:
    """Linear probe on labels of your own, clean or noisy: accuracy, intervals, floors, confusions."""
    from dinov2_noise.upstream.probing.own_labels import LinearProbe

    images = Images(train, val, root, noise, train_noise, noise_seed, val_fraction, folds, seed, allow_leak=allow_leak)
    job = Job(open_model(run, config_file, weights), arm, output, batch_size, workers, device, geometry, random_floor)
    job.evaluate(images, LinearProbe(blocks, average_pool, seed), upstream_options if upstream else None)


def knn(
    train: Train,
    output: Output,
    val: Val = None,
    run: Run = None,
    config_file: ConfigFile = None,
    weights: WeightsFile = None,
    noise: Noise = "clean",
    train_noise: TrainNoise = "same",
    noise_seed: NoiseSeed = 42,
    root: Root = None,
    val_fraction: Fraction = 0.2,
    folds: Folds = 0,
    k: Annotated[str, typer.Option(help="Numbers of neighbours, such as 20 or 10,20; the first is reported.")] = "20",
    seed: Seed = 0,
    arm: Arm = "",
    random_floor: RandomFloor = False,
    allow_leak: AllowLeak = False,
    upstream: Upstream = False,
    upstream_options: Options = "",
    batch_size: BatchSize = 128,
    workers: LoaderWorkers = 4,
    device: Device = "auto",
    geometry: Geometry = "upstream",
) -> None:
    """k-NN on labels of your own, clean or noisy: nothing is trained, upstream's weighting."""
    from dinov2_noise.upstream.probing.own_labels import KnnProbe

    images = Images(train, val, root, noise, train_noise, noise_seed, val_fraction, folds, seed, allow_leak=allow_leak)
    job = Job(open_model(run, config_file, weights), arm, output, batch_size, workers, device, geometry, random_floor)
    numbers = [item.strip() for item in k.split(",")]
    if not all(item.isascii() and item.isdecimal() for item in numbers):
        raise ConfigError(f"--k {k!r}: numbers of neighbours separated by commas, such as 20 or 10,20")
    job.evaluate(images, KnnProbe(tuple(map(int, numbers))), upstream_options if upstream else None)


def compare_probes(
    first: Annotated[Path, typer.Argument(help="Output folder of `evaluate linear` or `evaluate knn`.")],
    second: Annotated[Path, typer.Argument(help="Another, on the same images.")],
) -> None:
    """Two models on the same images: difference of accuracies, its interval, McNemar's test."""
    from dinov2_noise.evaluation.paired import compare_predictions, shared_predictions

    table = Table(
        "probe", "noise", "images", "first (%)", "second (%)", "difference", "95 % interval", "p", box=SIMPLE_HEAD
    )
    for name in shared_predictions(first, second):
        found = compare_predictions(first / name, second / name)
        low, high = found.interval()
        accuracies = [f"{100 * accuracy:.1f}" for accuracy in found.accuracies]
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        probe, noise = name.split("/")[0], Path(name).stem
        difference, p = f"{100 * found.difference:+.1f}", f"{found.p_value():.3f}"
        table.add_row(probe, noise, str(found.n_images), *accuracies, difference, interval, p)
    console.print(table)
