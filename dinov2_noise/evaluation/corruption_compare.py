"""Models side by side: the same cells, the same images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.corruption_cells import split_name
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.files import atomic_path, write_json

Row = dict[str, float | None]


def load_models(folders: Sequence[Path]) -> list[Summary]:
    """Summaries of output folders of `evaluate corruptions`, checked to be comparable.

    Raises:
        ConfigError: fewer than two, the same name twice, or cells, probes or images differ; names what differs.
        MissingFolderError, CheckpointError: a folder has no (readable) summary.
    """
    if len(folders) < 2:
        raise ConfigError("compare needs at least two output folders of `evaluate corruptions`")
    models = [Summary.load(folder) for folder in folders]
    names = [model.model for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two models are called {name!r}: evaluate one of them again with --name (nothing is redone)"
            )
    for folder, model in zip(folders[1:], models[1:], strict=True):
        _require_same(models[0], model, f"{folders[0]} and {folder}")
    return models


def _require_same(first: Summary, other: Summary, which: str) -> None:
    if set(first.cells) != set(other.cells):
        alone = sorted(set(first.cells) ^ set(other.cells))
        raise ConfigError(f"{which} hold other cells: only one of them has {_some(alone)}; evaluate the same cells")
    if first.kinds != other.kinds:
        raise ConfigError(f"{which} were probed differently: {', '.join(first.kinds)} and {', '.join(other.kinds)}")
    differing = [name for name in first.cells if dict(first.cells[name].images) != dict(other.cells[name].images)]
    if differing:
        raise ConfigError(
            f"{which} were evaluated on other images or with another seed or size: {_some(differing)} differ"
        )
    keys = ("geometry", "corruptions", "knn")
    settings = [key for key in keys if first.identity.get(key) != other.identity.get(key)]
    if settings:
        rows = "".join(f"\n  {key}: {first.identity.get(key)!r} and {other.identity.get(key)!r}" for key in settings)
        raise ConfigError(f"{which} were evaluated in different ways:{rows}")


def rows_of(models: Sequence[Summary], kind: str) -> dict[str, Row]:
    """Model → clean accuracy, mean accuracy of the 15, mCE, relative mCE, under our noises, all in per cent."""
    found = {}
    for model in models:
        scores = model.scores(kind)
        clean = None if scores.clean_error is None else 100 * (1 - scores.clean_error)
        mean = None if scores.mean_error is None else 100 * (1 - scores.mean_error)
        row: Row = {"clean": clean, "mean of the 15": mean, "mCE": scores.mce, "relative mCE": scores.relative_mce}
        row |= {noise: 100 * model.cells[noise].accuracy(kind) for noise in model.noises}
        found[model.model] = row
    return found


def accuracies(model: Summary, kind: str) -> dict[tuple[str, int], float]:
    """Accuracy by (corruption, severity)."""
    return {place: cell.accuracy(kind) for name, cell in model.cells.items() if (place := split_name(name))}


def difference(first: Summary, second: Summary, kind: str) -> dict[tuple[str, int], float]:
    """Accuracy of the second minus that of the first, by (corruption, severity)."""
    before = accuracies(first, kind)
    return {place: value - before[place] for place, value in accuracies(second, kind).items()}


def markdown(rows: Mapping[str, Row]) -> str:
    """The rows as a Markdown table."""
    columns = list(next(iter(rows.values())))
    lines = [["model", *columns], ["---"] * (1 + len(columns))]
    named = {" ".join(name.replace("|", "\\|").split()): row for name, row in rows.items()}
    lines += [[name, *(shown(row[column]) for column in columns)] for name, row in named.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(value: float | None) -> str:
    """One decimal, or a dash where cells are missing."""
    return "–" if value is None else f"{value:.1f}"


def save(models: Sequence[Summary], folder: Path) -> None:
    """Write ``compare.json``, ``compare.md`` and ``compare.csv``."""
    tables = {kind: rows_of(models, kind) for kind in models[0].kinds}
    content: dict[str, Any] = {
        "normalised_by": models[0].normalised_by,
        "models": {model.model: {"identity": dict(model.identity), "missing": list(model.missing)} for model in models},
        "per_cent": tables,
    }
    write_json(folder / "compare.json", content)
    with atomic_path(folder / "compare.md") as temporary:
        temporary.write_text(
            "\n".join(f"{kind}\n\n{markdown(rows)}" for kind, rows in tables.items()), encoding="utf-8"
        )
    with atomic_path(folder / "compare.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["probe", "cell", *(model.model for model in models)])
        for kind in models[0].kinds:
            for cell in models[0].cells:
                writer.writerow([kind, cell, *(f"{model.cells[cell].accuracy(kind):.6f}" for model in models)])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
