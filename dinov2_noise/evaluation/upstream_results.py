"""Readers for the files DINOv2's own scripts append to.

Read against upstream b8931f7: `eval/knn.py` ``eval_knn_with_model``, `eval/linear.py` ``evaluate_linear_classifiers``
and `logging/helpers.py` ``MetricLogger.dump_in_output_file``. All three append, so a file may hold several runs: the
last one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dinov2_noise.errors import CheckpointError, MissingFolderError

KNN_FILE = "results_eval_knn.json"
LINEAR_FILE = "results_eval_linear.json"
TRAINING_FILE = "training_metrics.json"

_FULL_TOP_1 = re.compile(r"\('full', (\d+)\) Top 1")


def read_knn(path: Path) -> dict[int, float]:
    """Top-1 accuracy in [0, 1] by number of neighbours, from ``results_eval_knn.json``.

    Lines such as ``{"('full', 10) Top 1": 45.1}`` (per cent) count; top-5 and few-shot lines are passed over.

    Raises:
        MissingFolderError: there is no such file.
        CheckpointError: a line is not JSON, or no line holds a top-1 accuracy.
    """
    accuracies: dict[int, float] = {}
    for number, line in _lines(path):
        for key, value in _json_object(path, number, line).items():
            found = _FULL_TOP_1.fullmatch(key)
            if found:
                accuracies[int(found[1])] = _proportion(path, number, value, full_scale=100.0)
    if not accuracies:
        raise CheckpointError(f"{path} holds no line such as {{\"('full', 10) Top 1\": 45.1}}: run eval/knn.py again")
    return accuracies


def read_linear(path: Path) -> tuple[str, float]:
    """Name and accuracy in [0, 1] of the best linear classifier, from ``results_eval_linear.json``.

    The last entry is the end of the last run (of its last test dataset, where several were given). Upstream chooses the
    classifier on the validation images themselves, so this number is optimistic. The name is empty where no classifier
    was right even once.

    Raises:
        MissingFolderError: there is no such file.
        CheckpointError: a line has another format, or there is no entry.
    """
    best: tuple[str, float] | None = None
    for number, line in _lines(path):
        if re.fullmatch(r"iter: \d+", line):
            continue
        entry = _json_object(path, number, line).get("best_classifier")
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise CheckpointError(f'{path} line {number} is not {{"best_classifier": {{"name": …, "accuracy": …}}}}')
        best = entry["name"], _proportion(path, number, entry.get("accuracy"), full_scale=1.0)
    if best is None:
        raise CheckpointError(f"{path} holds no results: run eval/linear.py again")
    return best


def read_training(path: Path) -> list[dict[str, float]]:
    """Logged iterations of ``training_metrics.json``, in order; a resumed run's later line replaces the earlier one.

    Every entry holds ``iteration``, ``iter_time``, ``data_time`` (seconds) and the medians over the last 20 iterations
    of ``total_loss``, ``lr``, … Losses may be NaN. A last line of which only a part is written is passed over: the
    training still runs, or was killed just then.

    Raises:
        MissingFolderError: there is no such file.
        CheckpointError: a line is not a JSON object with an iteration, or there is no line.
    """
    entries: dict[int, dict[str, float]] = {}
    for number, line in _lines(path, growing=True):
        entry = _json_object(path, number, line)
        if not isinstance(entry.get("iteration"), int):
            raise CheckpointError(f"{path} line {number} has no iteration: is this a training_metrics.json?")
        entries[entry["iteration"]] = entry
    if not entries:
        raise CheckpointError(f"{path} is empty: the training logged nothing yet")
    return [entries[iteration] for iteration in sorted(entries)]


def _lines(path: Path, *, growing: bool = False) -> Iterator[tuple[int, str]]:
    """Numbered lines of the file without the empty ones, and of a ``growing`` file without the begun one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as cause:
        raise MissingFolderError(f"no result file {path}: did DINOv2's script run to its end?") from cause
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"cannot read the result file {path}: {cause}") from cause
    lines = text.splitlines()
    if growing and not text.endswith(("\n", "}")):
        lines = lines[:-1]
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.strip()


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as cause:
        raise CheckpointError(f"{path} line {number} is not JSON: {line[:80]!r}") from cause
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} line {number} is not a JSON object: {line[:80]!r}")
    return content


def _proportion(path: Path, number: int, value: object, *, full_scale: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= full_scale * (1 + 1e-6):
        raise CheckpointError(f"{path} line {number}: {value!r} is not an accuracy between 0 and {full_scale:g}")
    return min(value / full_scale, 1.0)  # float32 on upstream's side: 100 % may come as 100.00000x
