"""The commands that use a finished run: ``export`` and ``embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

use_app = typer.Typer()


@use_app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a teacher_checkpoint.pth inside one.")],
    to: Annotated[str, typer.Option(help="safetensors (upstream's own names), hf (transformers), timm or onnx.")],
    output: Annotated[Path, typer.Option(help="New folder.")],
    name: Annotated[str | None, typer.Option(help="Title of the model card; by default the run's folder.")] = None,
    size: Annotated[int, typer.Option(help="Side in px of the images it is for; a multiple of the patch size.")] = 224,
    records: Annotated[
        Path | None, typer.Option(help="Folder of result records for the model card; by default those near the run.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Image for the parity check; by default the first of the training set.")
    ] = None,
) -> None:
    """Write a run's backbone for another library, checked against the run's own outputs, with a model card."""
    from dinov2_noise.export import ExportRequest
    from dinov2_noise.export import export as write

    for row in write(ExportRequest(run, to, output, name, size, records, image)):
        print(
            f"{row.images}: largest difference {row.cls:.1e} in class tokens, {row.patches:.1e} in patch tokens, where "
            f"values reach {row.scale:.3g}"
        )
    print(f"{output}: files for {to}, with README.md")


@use_app.command()
def embed(
    images: Annotated[list[str], typer.Argument(help="Files, folders or dataset strings.")],
    run: Annotated[Path, typer.Option(help="Folder of a run, or one that export wrote.")],
    out: Annotated[Path, typer.Option(help="Table to be written: .parquet, .npz or .npy.")],
    tokens: Annotated[str, typer.Option(help="cls, mean-patch, cls+mean or patches.")] = "cls",
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 64,
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    size: Annotated[int | None, typer.Option(help="Side of the crop in px; 224 by default.")] = None,
    values: Annotated[
        str | None, typer.Option("--range", help="Black and white of files: dtype, fixed:A,B, …; default: the run's.")
    ] = None,
    noise: Annotated[str | None, typer.Option(help="Noise to add to files on the fly, such as gauss100.")] = None,
    seed: Annotated[int, typer.Option(help="Base seed of that noise.")] = 42,
    skip_bad: Annotated[int, typer.Option(help="Leave out so many images that cannot be read.")] = 0,
) -> None:
    """Write the features of images into a table."""
    from dinov2_noise.decoding import parse_range
    from dinov2_noise.export import EmbedRequest
    from dinov2_noise.export import embed as write
    from dinov2_noise.export.embedding import token_choice

    found = write(
        EmbedRequest(
            images=images,
            run=run,
            out=out,
            tokens=token_choice(tokens),
            batch_size=batch_size,
            workers=workers,
            device=device,
            size_px=size,
            values=None if values is None else parse_range(values),
            noise=noise,
            seed=seed,
            skip_bad=skip_bad,
        )
    )
    waiting = 100 * found.waiting_s / found.seconds
    print(
        f"{out}: {found.n_images:,} images, {found.width:,} numbers each, in {found.seconds:.1f} s: "
        f"{found.n_images / found.seconds:.1f} images/s ({waiting:.0f} % of the time waiting for images)"
    )
