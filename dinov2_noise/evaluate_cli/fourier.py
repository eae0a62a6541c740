"""``evaluate fourier``: the accuracy that a perturbation of each single frequency costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dinov2_noise.evaluate_cli.common import (
    BatchSize,
    ConfigFile,
    Device,
    Geometry,
    Knn,
    LoaderWorkers,
    Output,
    ValDataset,
    WeightsFile,
    console,
    probe_request,
)

if TYPE_CHECKING:
    from dinov2_noise.upstream.probing.fourier import FourierRequest


def fourier(
    config_file: ConfigFile,
    weights: WeightsFile,
    val_dataset: ValDataset,
    output: Output,
    classifiers: Annotated[Path | None, typer.Option(help="Output folder of upstream's linear.py.")] = None,
    train_dataset: Annotated[str | None, typer.Option(help="Training images, for k-NN.")] = None,
    knn: Knn = "",
    grid: Annotated[int, typer.Option(help="Frequencies per axis, odd; about half of their square is measured.")] = 9,
    up_to: Annotated[float, typer.Option(help="Highest frequency per axis, in cycles per pixel.")] = 0.5,
    norm: Annotated[float, typer.Option(help="L2 norm of what is added to a channel in [0, 1].")] = 15.7,
    images: Annotated[int, typer.Option(help="Validation images, evenly spread.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the signs.")] = 0,
    batch_size: BatchSize = 128,
    workers: LoaderWorkers = 4,
    device: Device = "auto",
    geometry: Geometry = "upstream",
    shard: Annotated[str, typer.Option(help="i/n: only every n-th frequency, from the i-th.")] = "1/1",
    name: Annotated[str, typer.Option(help="Of the model, in the picture; by default the run's folder.")] = "",
) -> None:
    """Fourier heat map: the accuracy that a perturbation of each single frequency costs."""
    from dinov2_noise.evaluation.fourier import FourierGrid
    from dinov2_noise.files import parse_shard
    from dinov2_noise.report.corruption_tables import require_figures
    from dinov2_noise.upstream.probing.fourier import FourierRequest
    from dinov2_noise.upstream.probing.model import CROP_PX

    require_figures()
    probe = probe_request(
        config_file, weights, val_dataset, classifiers, train_dataset, knn, batch_size, workers, device, geometry
    )
    request = FourierRequest(probe, output, FourierGrid(grid, up_to, CROP_PX), norm, images, seed)
    _run_fourier(request, parse_shard(shard), name or config_file.resolve().parent.name)


def _run_fourier(request: FourierRequest, shard: tuple[int, int], name: str) -> None:
    from dinov2_noise.files import atomic_path
    from dinov2_noise.report.corruption_tables import title_of
    from dinov2_noise.report.fourier_figures import fourier_map
    from dinov2_noise.upstream.probing.probe import load

    request.probe.check()
    folder = request.folder()
    folder.folder.check()
    if folder.pending(shard):
        loaded = load(request.probe)
        folder.folder.open()  # not before: files that do not fit would leave a folder that refuses those that do
        folder.run(request.counter(loaded), shard)
    if folder.pending():
        console.print(f"{len(folder.pending())} frequencies are left to other shards, the last of which sums up")
        return
    measured = folder.heat_map()
    folder.save(measured, {"model": name, "weights": str(request.probe.weights)})
    for kind in measured.accuracy:
        with atomic_path(request.output / f"fourier-{kind}.png") as temporary:
            temporary.write_bytes(fourier_map(measured, kind, title=f"{name}, {title_of(kind)}"))
        worst = max(max(row) for row in measured.drop(kind))
        clean = measured.clean_accuracy[kind]
        console.print(f"{kind}: clean {100 * clean:.1f} %, at most {100 * worst:.1f} points lost")
    folder.folder.close(frequencies=len(folder.wanted))
    pictures = ", ".join(f"fourier-{kind}.png" for kind in measured.accuracy)
    console.print(f"{request.output}: fourier.json, {pictures}", soft_wrap=True)
