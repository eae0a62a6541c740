"""The commands that make images worse: ``add-noise`` and ``corrupt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dinov2_noise.command_line import Range, Shard, SkipBad, Workers

noise_app = typer.Typer()


def _list_noises(wanted: bool) -> None:
    if wanted:
        from dinov2_noise.noise.listing import print_noises

        print_noises()
        raise typer.Exit


@noise_app.command()
def add_noise(
    source: Annotated[Path, typer.Argument(help="Folder of clean images, any depth.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the noisy images.")],
    noise: Annotated[str, typer.Option(help="For example gauss255, shot1, speckle0.4, poissongauss30_10, gauss5-50.")],
    seed: Annotated[int, typer.Option(help="Base seed; 42 gives the published images.")] = 42,
    workers: Workers = None,
    image_format: Annotated[str, typer.Option("--format", help="png or webp (smaller, slower); no loss.")] = "png",
    shard: Shard = "1/1",
    skip_bad: SkipBad = 0,
    values: Range = "dtype",
    list_noises: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_list_noises, help="List all noises, and stop.")
    ] = False,
) -> None:
    """Add one fixed noise realisation to every image of a folder."""
    from dinov2_noise.decoding import parse_range
    from dinov2_noise.files import parse_shard, read_manifest
    from dinov2_noise.noise import add_noise as run

    count = run(
        source,
        destination,
        noise=noise,
        base_seed=seed,
        workers=workers,
        image_format=image_format,
        shard=parse_shard(shard),
        values=parse_range(values),
        skip_bad=skip_bad,
    )
    rest = "" if read_manifest(destination)["complete"] else "; not complete yet: other shards are missing"
    print(f"{destination}: {count} images written{rest}")


@noise_app.command()
def corrupt(
    source: Annotated[Path, typer.Argument(help="Folder of clean images; of a root with val/, only that is read.")],
    destination: Annotated[Path, typer.Argument(help="New folder; a cell goes to DESTINATION/fog/3/… (PNG).")],
    corruptions: Annotated[
        str, typer.Option(help="all (19), standard (15), extra (4), or names: fog,snow.")
    ] = "standard",
    severities: Annotated[str, typer.Option(help="1 (mild) to 5, separated by commas.")] = "1,2,3,4,5",
    seed: Annotated[int, typer.Option(help="Base seed.")] = 42,
    size: Annotated[str, typer.Option(help="Side of the centre crop in px, made first; full for none.")] = "224",
    workers: Workers = None,
    shard: Shard = "1/1",
    skip_bad: SkipBad = 0,
    values: Range = "dtype",
) -> None:
    """Write the corruptions of ImageNet-C of every image of a folder."""
    from dinov2_noise.decoding import parse_range
    from dinov2_noise.files import parse_shard, read_manifest
    from dinov2_noise.noise import corruptions as parts

    names, levels = parts.parse_names(corruptions), parts.parse_severities(severities)
    count = parts.corrupt_folder(
        source,
        destination,
        [parts.Corruption(name, level) for name in names for level in levels],
        base_seed=seed,
        size_px=parts.parse_size(size),
        workers=workers,
        shard=parse_shard(shard),
        skip_bad=skip_bad,
        values=parse_range(values),
    )
    rest = "" if read_manifest(destination)["complete"] else "; not complete yet: other shards are missing"
    print(f"{destination}: {len(names) * len(levels)} corruptions of {count} images written{rest}")
