"""``dinov2-noise report``: one HTML file on runs and what was measured of them."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dinov2_noise.errors import ConfigError, MissingFolderError, WriteError

console = Console(stderr=True, highlight=False, soft_wrap=True)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…", help="Runs, recipe or demo folders, folders of records or corruption benchmarks."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="Heading; by default the names of the runs.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Read no images and run no network: seconds instead of minutes.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder of clean images for the pictures, instead of the run's.")
    ] = None,
    clean: Annotated[Path | None, typer.Option(help="Root of the clean originals of the run's noisy images.")] = None,
    noise: Annotated[str | None, typer.Option(help="Noise of the pictures, by default the run's, or gauss100.")] = None,
    candidates: Annotated[int, typer.Option(help="Images among which neighbours are looked for.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N, for the pictures of features.")] = "auto",
) -> None:
    """Write one HTML file: what was trained on what, curves, results over seeds, pictures, costs.

    What cannot be read is named on the page and on standard error; the exit status is 1 only when nothing could be
    shown, or records contradict each other.
    """
    if no_pictures and (images is not None or clean is not None or noise is not None):
        raise ConfigError("--images, --clean and --noise are for pictures: leave --no-pictures out")
    if candidates < 2:
        raise ConfigError(f"--candidates is {candidates}: neighbours need at least 2 images")
    _check_output(output)
    _check_choice(images, clean, noise, device)
    try:
        from dinov2_noise.report.compose import Request, write
        from dinov2_noise.report.features import Settings
        from dinov2_noise.report.images import Choice
    except ImportError as cause:
        fault = f"the report needs matplotlib and jinja2 ({cause}): pip install 'dinov2-noise[report]'"
        raise MissingFolderError(fault) from cause
    settings = Settings(Choice(images, clean, noise), n_candidates=candidates, device=device)
    request = Request(folders, title, not no_pictures, settings)
    found = write(request, output, lambda text: console.print(f"report: {text}", markup=False))
    for problem in found.problems:
        console.print(f"warning: {problem}", markup=False)
    print(output)
    if open_it:
        _open(output)


def _check_output(output: Path) -> None:
    """Before minutes of work: whether the page can be written there."""
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder: name a file, such as {output / 'report.html'}")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ConfigError(f"--output {output}: {above} is a file, not a folder: name another place")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as cause:
        raise WriteError(output, cause) from cause


def _check_choice(images: Path | None, clean: Path | None, noise: str | None, device: str) -> None:
    """What is asked for and cannot be had ends the command at once, not in a remark on the page."""
    from dinov2_noise.denoise.device import choose_device
    from dinov2_noise.noise import parse

    for option, folder in (("--images", images), ("--clean", clean)):
        if folder is not None and not folder.is_dir():
            raise MissingFolderError(f"{option} {folder} is no folder: check the path")
    if noise is not None:
        parse(noise)
    choose_device(device)


def _open(path: Path) -> None:
    """Show it in the browser; where there is none the file is there all the same."""
    try:
        opened = webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        console.print(f"warning: no browser can be opened here: open {path.resolve()} yourself", markup=False)
