"""``monitor.jsonl``: what was measured while a run trained, one line per measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dinov2_noise.errors import MissingFolderError, MonitorLogError, WriteError
from dinov2_noise.files import atomic_path

LOG_NAME = "monitor.jsonl"


@dataclass(frozen=True)
class Measurement:
    """One line.

    Attributes:
        iteration: after which it was made, from 0, as in ``training_metrics.json``. stage: name of its stage.
        seconds: that training stood still for it.
        values: by name, ``MEASURE/VIEW``; accuracies in [0, 1]; see docs/monitoring.md.
        n_images: by use, ``train``, ``val`` and ``unlabelled``.
    """

    iteration: int
    stage: str
    seconds: float
    values: Mapping[str, float]
    n_images: Mapping[str, int] = field(default_factory=dict)


def append(path: Path, measurement: Measurement) -> None:
    """Add a line, in one piece.

    Raises:
        WriteError: the file cannot be written.
    """
    line = json.dumps(asdict(measurement)) + "\n"
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as cause:
        raise WriteError(path, cause) from cause


def read_log(path: Path | str) -> list[Measurement]:
    """All measurements in ``path``, in the order of the file.

    A last line that is cut, by a process that was killed while it wrote, does not count.

    Raises:
        MissingFolderError: there is no such file.
        MonitorLogError: another line is damaged.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as cause:
        raise MissingFolderError(
            f"{path} cannot be read ({cause.strerror}): a run writes it when evaluation.eval_period_iterations is "
            "above 0 and monitor.enabled is true"
        ) from cause
    whole, rest = lines[:-1], lines[-1]
    found = [_parse(path, number, line) for number, line in enumerate(whole, 1) if line.strip()]
    if rest.strip():
        with suppress(MonitorLogError):
            found.append(_parse(path, len(lines), rest))
    return found


def cut(path: Path, first_iteration: int) -> None:
    """Drop the lines from ``first_iteration`` on, where a resumed run goes on, and a last line that is cut.

    Raises:
        MonitorLogError, WriteError: the file is damaged, or cannot be written.
    """
    if not path.is_file():
        return
    kept = [entry for entry in read_log(path) if entry.iteration < first_iteration]
    text = "".join(json.dumps(asdict(entry)) + "\n" for entry in kept)
    if text.encode() == path.read_bytes():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _parse(path: Path, number: int, line: bytes) -> Measurement:
    try:
        entry: dict[str, Any] = json.loads(line)
        return Measurement(
            iteration=int(entry["iteration"]),
            stage=str(entry["stage"]),
            seconds=float(entry["seconds"]),
            values={str(name): float(value) for name, value in entry["values"].items()},
            n_images={str(name): int(count) for name, count in entry.get("n_images", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        raise MonitorLogError(
            f"line {number} of {path} is no measurement ({type(cause).__name__}: {cause}): take it out"
        ) from cause
