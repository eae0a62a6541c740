"""The commands that make images worse: ``add-noise`` and ``corrupt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

noise_app = typer.Typer()

Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core.")]


@noise_app.command()
def add_noise(
    source: Annotated[Path, typer.Argument(help="Folder of clean images, any depth.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the noisy images (PNG).")],
    noise: Annotated[str, typer.Option(help="For example gauss255, shot1, speckle0.4.")],
    seed: Annotated[int, typer.Option(help="Base seed; 42 gives the published images.")] = 42,
    workers: Workers = None,
) -> None:
    """Add one fixed noise realisation to every image of a folder."""
    from dinov2_noise.noise import add_noise as run

    count = run(source, destination, noise=noise, base_seed=seed, workers=workers)
    print(f"{destination}: {count} images written")


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
    shard: Annotated[str, typer.Option(help="i/n: the i-th of n such commands that share the work.")] = "1/1",
) -> None:
    """Write the corruptions of ImageNet-C of every image of a folder."""
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
    )
    rest = "" if read_manifest(destination)["complete"] else "; not complete yet: other shards are missing"
    print(f"{destination}: {len(names) * len(levels)} corruptions of {count} images written{rest}")
