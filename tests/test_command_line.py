"""A command made again from what was read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from dinov2_noise.command_line import arguments_again

app = typer.Typer()
again: list[list[str]] = []


@app.callback()
def of_commands() -> None:
    """A group, as ours are."""


@app.command("work")
def work(
    context: typer.Context,
    source: str,
    target: Path,
    number: int = 3,
    fast: Annotated[bool, typer.Option("--fast/--slow")] = False,
    word: Annotated[list[str] | None, typer.Option("--word", "--old-word")] = None,
    gpus: int = 1,
) -> None:
    again.append(arguments_again(context, without=("gpus",)))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a b", "work -- a b"),
        ("a b --gpus 2 --number=3", "work --number=3 -- a b"),
        ("--slow a --old-word x=1 --word=-y b", "work --slow --word=x=1 --word=-y -- a b"),
        ("--fast -- -a b", "work --fast -- -a b"),
    ],
)
def test_what_was_typed_comes_again(typed: str, expected: str) -> None:
    for arguments in (["work", *typed.split()], expected.split()):
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert again.pop() == expected.split()
