"""The commands about a user's images: ``check`` and ``index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dinov2_noise.command_line import Workers

data_app = typer.Typer()


@data_app.command()
def check(
    data: Annotated[
        str, typer.Argument(help="Folder of images, any depth; or a dataset string, ImageFolder:root=R:noise=gauss100.")
    ],
    denoised: Annotated[Path | None, typer.Option(help="Folder of their denoised twins: do they pair?")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights that the denoised twins should come from.")] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Folder of their clean twins: gives the noise's exact bias.")
    ] = None,
    values: Annotated[
        str | None, typer.Option("--range", help="Which stored values are black and white, as fixed:0,4095.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Decode only so many evenly spaced images; by default all.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    write_list: Annotated[
        Path | None, typer.Option(help="Write the paths of all usable images, for ImageFolder:root=R:list=FILE.")
    ] = None,
    list_bad: Annotated[Path | None, typer.Option(help="Write the paths of all files that cannot be used.")] = None,
    workers: Workers = None,
) -> None:
    """Tell what is in a set of images: files, sizes, duplicates, pairs, noise. Exit status 1 if some cannot be used."""
    from dinov2_noise.check import check_command

    raise typer.Exit(
        check_command(
            data,
            denoised=denoised,
            weights=weights,
            clean=clean,
            values=values,
            sample=sample,
            workers=workers,
            json=json,
            usable_list=write_list,
            bad_list=list_bad,
        )
    )


@data_app.command()
def index(
    root: Annotated[Path, typer.Argument(help="Folder with train/<class>/… and val/<class>/….")],
    extra: Annotated[Path | None, typer.Option(help="Where the metadata go; by default ROOT-extra.")] = None,
    workers: Annotated[int, typer.Option(help="Threads that read folders; more on a network disk.")] = 16,
    listing: Annotated[
        Path | None,
        typer.Option(help="Read this list in place of the folders, such as EXTRA/listing.txt."),
    ] = None,
) -> None:
    """Write the ImageNet-style metadata that dataset strings need."""
    from dinov2_noise.data import build_index

    for split, count in build_index(root, extra, workers=workers, listing=listing).items():
        print(f"{split}: {count} images")
