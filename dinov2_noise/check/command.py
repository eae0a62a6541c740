"""The command ``dinov2-noise check``: report on the screen, lists and JSON in files."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

from dinov2_noise.check.lines import report_lines
from dinov2_noise.check.record import record
from dinov2_noise.check.run import check, write_lists
from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import ConfigError, OutputFolderError, WriteError
from dinov2_noise.files import write_json

_WORD_WIDTH = 16


def check_command(
    data: str,
    *,
    denoised: Path | None,
    weights: Path | None,
    clean: Path | None,
    values: str | None,
    sample: int | None,
    workers: int | None,
    json: Path | None,
    usable_list: Path | None,
    bad_list: Path | None,
) -> int:
    """Run `check`, print what it found, and write the files asked for; returns the exit status.

    Raises:
        DinoNoiseError: see `check` and `write_lists`; or a file could not be written, which is tried first.
    """
    if usable_list is not None and data.startswith("WebDataset:"):
        raise ConfigError(
            "--write-list: no list names images in tar shards; --list-bad tells which to leave out when the shards are "
            "written again"
        )
    for file in (json, usable_list, bad_list):
        if file is not None:
            require_writable(file)
    found = check(
        data,
        values=None if values is None else parse_range(values),
        denoised=denoised,
        clean=clean,
        weights=weights,
        sample=sample,
        workers=workers,
    )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for word, text in report_lines(found):
        print(as_printed(word, text, width))
    write_lists(found, usable=usable_list, bad=bad_list)
    if json is not None:
        write_json(json, record(found))
    return 0 if found.good else 1


def as_printed(word: str, text: str, width: int | None = None) -> str:
    """The word in its column, the text in the next, further lines below it; broken at ``width``, if any."""
    lines = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split("\n")
    if width is not None:
        room = max(40, width - _WORD_WIDTH)
        lines = [part for line in lines for part in _broken(line, room)]
    first, *further = lines
    return "\n".join([f"{word:{_WORD_WIDTH}}{first}", *(f"{'':{_WORD_WIDTH}}{line}" for line in further)])


def _broken(line: str, room: int) -> list[str]:
    """Between words; names and commands stay whole, so that they can be copied."""
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return textwrap.wrap(line, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [line]


def require_writable(file: Path) -> None:
    """Find out before hours of work that a file cannot be written at its end.

    Raises:
        OutputFolderError: there is a folder of this name.
        WriteError: no file can be made in its folder.
    """
    if file.is_dir():
        raise OutputFolderError(f"{file} is a folder: name a file to be written")
    try:
        os.makedirs(file.parent, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as cause:
        raise WriteError(file, cause) from cause
