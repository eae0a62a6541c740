"""The commands about a user's images: ``check`` and ``index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer()

Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core.")]


@data_app.command()
def check(
    data: Annotated[Path, typer.Argument(help="Folder of images, any depth.")],
    workers: Workers = None,
) -> None:
    """Tell what is in a folder: sizes, unreadable files, the noise and whether a denoiser can be trained on it."""
    from dinov2_noise.check import check_folder

    found = check_folder(data, workers=workers)
    for name, text in found.lines():
        print(f"{name:16}{text}")
    raise typer.Exit(0 if found.good else 1)


@data_app.command()
def index(
    root: Annotated[Path, typer.Argument(help="Folder with train/<class>/… and val/<class>/….")],
    extra: Annotated[Path | None, typer.Option(help="Where the metadata go; by default ROOT-extra.")] = None,
) -> None:
    """Write the ImageNet-style metadata that dataset strings need."""
    from dinov2_noise.data import build_index

    for split, count in build_index(root, extra).items():
        print(f"{split}: {count} images")
