"""``evaluate corruptions`` and ``evaluate compare``: accuracy on ImageNet-C's corruptions and on our noises."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinov2_noise.errors import ConfigError, OutputFolderError
from dinov2_noise.evaluate_cli.common import (
    BatchSize,
    Classifiers,
    ConfigFile,
    Device,
    Geometry,
    Knn,
    LoaderWorkers,
    Output,
    TrainDataset,
    ValDataset,
    WeightsFile,
    console,
    probe_request,
)

if TYPE_CHECKING:
    from dinov2_noise.evaluation.corruption_run import CellFolder
    from dinov2_noise.upstream.probing.benchmark import Benchmark
    from dinov2_noise.upstream.probing.probe import ProbeRequest

_LEAST_CLASSES = 5  # upstream's linear.py always counts the top 5


def corruptions(
    config_file: ConfigFile,
    weights: WeightsFile,
    val_dataset: ValDataset,
    output: Output,
    classifiers: Classifiers = None,
    train_dataset: TrainDataset = None,
    knn: Knn = "",
    knn_only: Annotated[bool, typer.Option("--knn-only", help="No linear classifiers.")] = False,
    linear_options: Annotated[str, typer.Option(help="Options of upstream's linear.py, where heads are trained.")] = "",
    imagenet_c: Annotated[Path | None, typer.Option(help="Read corrupted images there, do not make them.")] = None,
    corruptions: Annotated[str, typer.Option(help="all (19), standard (15), extra (4), none, or names.")] = "all",
    severities: Annotated[str, typer.Option(help="Of 1 to 5, separated by commas.")] = "1,2,3,4,5",
    noises: Annotated[str, typer.Option(help="Our noises beside them, or none.")] = "gauss50,gauss100,gauss255",
    size: Annotated[str | None, typer.Option(help="Crop that is corrupted, in px, or full; by default 224.")] = None,
    seed: Annotated[int | None, typer.Option(help="Base seed of the corruptions; by default 42.")] = None,
    batch_size: BatchSize = 128,
    workers: LoaderWorkers = 4,
    device: Device = "auto",
    geometry: Geometry = "upstream",
    shard: Annotated[str, typer.Option(help="i/n: only every n-th cell, from the i-th.")] = "1/1",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without cells the folder lacks.")
    ] = False,
    name: Annotated[str, typer.Option(help="Of the model, in tables; by default the run's folder.")] = "",
) -> None:
    """Accuracy on ImageNet-C's corruptions and on our noises, in one process; mCE, tables, pictures."""
    from dinov2_noise.evaluation.corruption_cells import Grid
    from dinov2_noise.files import parse_shard
    from dinov2_noise.upstream.probing.benchmark import Benchmark

    request = probe_request(
        config_file, weights, val_dataset, classifiers, train_dataset, knn, batch_size, workers, device, geometry
    )
    trains = classifiers is None and not knn_only
    for wrong, complaint in (
        (knn_only and classifiers is not None, "--knn-only and --classifiers contradict each other: leave one out"),
        (linear_options and not trains, "--linear-options is for heads trained here: none are, leave it out"),
        (imagenet_c is not None and (size or seed is not None), "--imagenet-c reads images: leave out --size, --seed"),
    ):
        if wrong:
            raise ConfigError(complaint)
    benchmark = Benchmark(
        probe=request,
        output=output,
        grid=Grid.parse(corruptions, severities, noises),
        name=name or config_file.resolve().parent.name,
        imagenet_c=imagenet_c,
        size="224" if size is None else size,
        seed=42 if seed is None else seed,
        allow_missing=allow_missing,
        heads_from=_linear_training(request, linear_options) if trains else {},
    )
    _run(benchmark, parse_shard(shard))


def _run(benchmark: Benchmark, shard: tuple[int, int]) -> None:
    from dinov2_noise.report.corruption_tables import cells_table, draw_model, models_table, require_figures

    require_figures()
    benchmark.probe.check(heads_follow=bool(benchmark.heads_from))
    folder = benchmark.folder()
    if folder.missing:
        console.print(f"{len(folder.missing)} cells are not there and left out: {', '.join(folder.missing)}")
    if benchmark.heads_from:
        benchmark = benchmark.with_classifiers(_train_heads(benchmark, folder, shard))
    measured = benchmark.run(folder, shard)
    if not folder.is_complete():
        left = len(folder.pending())
        console.print(f"{measured} cells measured; {left} are left to other shards, the last of which sums up")
        return
    summary = benchmark.summary(folder)
    summary.save(benchmark.output)
    pictures = draw_model(summary, benchmark.output)
    folder.folder.close(cells=len(folder.cells))
    for kind in summary.kinds:
        console.print(cells_table(summary, kind))
        console.print(models_table([summary], kind))
    if any(summary.scores(kind).ce_of for kind in summary.kinds):
        console.print(f"CE and mCE normalised by {summary.normalised_by}", soft_wrap=True)
    console.print(
        f"{benchmark.output}: summary.json, cells.csv, {', '.join(path.name for path in pictures)}", soft_wrap=True
    )


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of `evaluate corruptions`.")],
    output: Annotated[Path, typer.Option(help="Folder for tables and pictures.")],
) -> None:
    """Models side by side: the same cells, the same images."""
    from dinov2_noise.evaluation.corruption_compare import load_models, save
    from dinov2_noise.report.corruption_tables import draw_models, models_table

    models = load_models(folders)
    pictures = draw_models(models, output)
    save(models, output)
    for kind in models[0].kinds:
        console.print(models_table(models, kind))
    names = ["compare.json", "compare.md", "compare.csv", *(path.name for path in pictures)]
    console.print(f"{output}: {', '.join(names)}", soft_wrap=True)


def _linear_training(request: ProbeRequest, options: str) -> dict[str, Any]:
    """How heads will be trained: what tells the folder of their results from others."""
    from dinov2_noise.evaluation.identity import dataset_identity

    if request.train_dataset is None:
        raise ConfigError(
            "give --classifiers (output folder of upstream's linear.py), or --train-dataset to train them first, or "
            "--knn-only with --knn"
        )
    try:
        words = shlex.split(options)
    except ValueError as cause:
        raise ConfigError(f"--linear-options {options!r}: {cause}") from cause
    return {"trained_on": dataset_identity(request.train_dataset), "options": words}


def _train_heads(benchmark: Benchmark, cells: CellFolder, shard: tuple[int, int]) -> Path:
    """Train linear classifiers by upstream's own code, unless that is done; returns their folder.

    Raises:
        ConfigError: one of several shards would have to, or there are too few classes.
        OutputFolderError: cells were measured with heads that are gone.
        LaunchError: upstream's script failed.
    """
    from dinov2_noise import data
    from dinov2_noise.evaluation.counting import n_classes_of
    from dinov2_noise.launch import run as launch
    from dinov2_noise.upstream.probing.heads import are_finished

    request, folder = benchmark.probe, benchmark.output / "linear"
    cells.check()
    if are_finished(folder):
        return folder
    if shard[1] > 1:
        raise ConfigError("--shard needs trained classifiers: give --classifiers, or run once with --corruptions none")
    if cells.results():
        raise OutputFolderError(
            f"{folder} is gone, and {benchmark.output} holds results of its heads: choose another folder"
        )
    assert request.train_dataset is not None
    if n_classes_of(data.make(request.train_dataset), request.train_dataset) < _LEAST_CLASSES:
        raise ConfigError(
            f"upstream's linear.py needs {_LEAST_CLASSES} classes: use --knn 20 --knn-only, or other images"
        )
    cells.open()
    log = benchmark.output / "linear.log"
    console.print(f"training linear classifiers with upstream's linear.py: log in {log}", soft_wrap=True)
    command = [
        *(sys.executable, "-m", "dinov2.eval.linear", "--config-file", str(request.config_file)),
        *("--pretrained-weights", str(request.weights), "--output-dir", str(folder)),
        *("--train-dataset", request.train_dataset, "--val-dataset", request.val_dataset),
        *("--num-workers", str(max(1, request.workers)), *benchmark.heads_from["options"]),
    ]
    launch(command, log=log)
    return folder
