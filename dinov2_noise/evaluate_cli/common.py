"""Options that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dinov2_noise.errors import ConfigError

if TYPE_CHECKING:
    from dinov2_noise.upstream.probing.probe import ProbeRequest

console = Console(highlight=False)

ConfigFile = Annotated[Path, typer.Option(help="config.yaml of the run.")]
WeightsFile = Annotated[Path, typer.Option(help="Its eval/training_…/teacher_checkpoint.pth.")]
ValDataset = Annotated[str, typer.Option(help="Clean validation images, such as ImageNet:split=VAL:root=R.")]
TrainDataset = Annotated[str | None, typer.Option(help="Training images, for k-NN and to train classifiers.")]
Classifiers = Annotated[
    Path | None, typer.Option(help="Output folder of upstream's linear.py; without it heads are trained first.")
]
Output = Annotated[Path, typer.Option(help="Folder for the results; the same command continues there.")]
Knn = Annotated[str, typer.Option(help="Numbers of neighbours, such as 20 or 10,20; empty: no k-NN.")]
BatchSize = Annotated[int, typer.Option(help="Images per forward pass.")]
LoaderWorkers = Annotated[int, typer.Option(help="Processes that load and corrupt images.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Geometry = Annotated[
    str,
    typer.Option(help="upstream: every image to 256 px, then 224; official: images of 224 px are left as they are."),
]


def probe_request(
    config_file: Path,
    weights: Path,
    val_dataset: str,
    classifiers: Path | None,
    train_dataset: str | None,
    knn: str,
    batch_size: int,
    workers: int,
    device: str,
    geometry: str,
) -> ProbeRequest:
    """The model options that all commands share, checked."""
    from dinov2_noise.upstream.probing.probe import ProbeRequest

    neighbours = [item for item in knn.split(",") if item]
    if not all(item.isdecimal() for item in neighbours):
        raise ConfigError(f"--knn {knn!r}: numbers of neighbours separated by commas, such as 10,20")
    if geometry not in ("upstream", "official"):
        raise ConfigError(f"--geometry {geometry!r}: valid are upstream, official")
    return ProbeRequest(
        config_file=config_file,
        weights=weights,
        val_dataset=val_dataset,
        classifiers=classifiers,
        train_dataset=train_dataset,
        knn=tuple(int(item) for item in neighbours),
        geometry="official" if geometry == "official" else "upstream",
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
