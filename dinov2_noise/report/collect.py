"""What lies below the given folders: training runs, records, and summaries of corruption benchmarks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinov2_noise.errors import DinoNoiseError, MissingFolderError
from dinov2_noise.evaluation.corruption_summary import SUMMARY_NAME, Summary
from dinov2_noise.evaluation.records import Record
from dinov2_noise.files import is_image_name
from dinov2_noise.report.arms import with_arms
from dinov2_noise.report.runs import CONFIG, Run, is_run, read_run

_DEEPEST = 6
"""Folders below a given one that are looked into."""
_LARGEST_RECORD = 2**20
_LOOKED_AT = 50  # entries, to tell whether a folder holds images


@dataclass(frozen=True)
class Found:
    """All that can be shown.

    Attributes:
        runs: in order of name. records: (file, record). summaries: (folder, summary).
        problems: files that could not be read, in words.
    """

    runs: Sequence[Run] = ()
    records: Sequence[tuple[Path, Record]] = ()
    summaries: Sequence[tuple[Path, Summary]] = ()
    problems: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.records or self.summaries or any(_shows_something(run) for run in self.runs))


def _shows_something(run: Run) -> bool:
    return bool(run.training or run.health or run.monitor or run.stages or run.is_untrained)


@dataclass
class _Paths:
    runs: list[Path] = field(default_factory=list)
    records: list[Path] = field(default_factory=list)
    summaries: list[Path] = field(default_factory=list)


def collect(folders: Sequence[Path]) -> Found:
    """Read everything below ``folders``, each of which is a run, or holds runs, records or evaluations.

    Raises:
        MissingFolderError: a folder does not exist, or there is nothing to show in any of them; says what was looked
            for, and what was wrong with what there was.
    """
    paths = _Paths()
    for folder in folders:
        if not folder.is_dir():
            fault = "is a file" if folder.exists() else "does not exist"
            raise MissingFolderError(f"{folder} {fault}: give the folder of a run, or one that holds records")
        _look_into(folder, paths)
        if folder not in paths.runs and (folder / CONFIG).is_file() and not _below(folder, paths):
            paths.runs.append(folder)  # a run that stopped before its first step
    problems: list[str] = []
    runs = with_arms([read_run(folder, name) for folder, name in _named(_unique(paths.runs)).items()])
    for run in runs:
        problems += run.problems
    found = Found(runs, _records(_unique(paths.records), problems), _summaries(_unique(paths.summaries), problems))
    found = Found(found.runs, found.records, found.summaries, problems)
    if found.is_empty:
        reasons = "".join(f"\n  {problem}" for problem in problems)
        raise MissingFolderError(
            f"nothing to show in {', '.join(map(str, folders))}: there is no run (config.yaml and "
            f"training_metrics.json), no records/*.json and no summary.json of `evaluate corruptions`{reasons}"
        )
    return found


def _below(folder: Path, paths: _Paths) -> bool:
    return any(path.is_relative_to(folder) for path in (*paths.runs, *paths.records, *paths.summaries))


def _look_into(top: Path, paths: _Paths) -> None:
    for folder in _folders(top, 0):
        if is_run(folder):
            paths.runs.append(folder)
        if (folder / SUMMARY_NAME).is_file():
            paths.summaries.append(folder)
        if folder.name == "records" or folder == top:
            paths.records += [path for path in sorted(folder.glob("*.json")) if folder.name == "records" or _like(path)]


def _like(path: Path) -> bool:
    """Whether a file that lies in no folder called ``records`` is one all the same."""
    content = _json(path)
    return isinstance(content, dict) and {"arm", "metric", "value", "n_images"} <= content.keys()


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth == _DEEPEST:
        return
    try:
        below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for path in map(Path, below):
        if not _holds_images(path):
            yield from _folders(path, depth + 1)


def _holds_images(folder: Path, depth: int = 0) -> bool:
    """Whether it is a tree of images, which may have millions of files: a look at the first ones of each level."""
    if any((folder / name).exists() for name in (CONFIG, SUMMARY_NAME, "records", "runs")):
        return False
    first = None
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if is_image_name(entry.name):
                    return folder.name != "records"
                if entry.is_dir() and (first is None or entry.path < first):
                    first = entry.path
                if number > _LOOKED_AT:
                    break
    except OSError:
        return False
    return first is not None and depth < 3 and _holds_images(Path(first), depth + 1)


def _unique(paths: Sequence[Path]) -> list[Path]:
    """Each file once, whatever way it was reached."""
    return list({path.resolve(): path for path in paths}.values())


def _named(folders: Sequence[Path]) -> dict[Path, str]:
    """A short name for each: its own, with those of folders above where two are alike."""
    absolute = {folder: folder.resolve() for folder in folders}
    names = {folder: path.name for folder, path in absolute.items()}
    for depth in range(2, 6):
        taken = list(names.values())
        for folder, name in names.items():
            if taken.count(name) > 1:
                names[folder] = "/".join(absolute[folder].parts[-depth:])
    return names


def _records(paths: Sequence[Path], problems: list[str]) -> list[tuple[Path, Record]]:
    found = []
    for path in paths:
        try:
            found.append((path, Record.load(path)))
        except DinoNoiseError as cause:
            problems.append(str(cause))
    return found


def _summaries(folders: Sequence[Path], problems: list[str]) -> list[tuple[Path, Summary]]:
    found = []
    for folder in folders:
        if not _is_summary(folder / SUMMARY_NAME):
            continue
        try:
            found.append((folder, Summary.load(folder)))
        except DinoNoiseError as cause:
            problems.append(str(cause))
    return found


def _is_summary(path: Path) -> bool:
    """Not some other program's ``summary.json``; a damaged one counts, to be named."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError:
        return True
    except ValueError:
        return "cells" in text[: 2**16]
    return isinstance(content, dict) and "cells" in content
