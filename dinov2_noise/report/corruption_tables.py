"""A corruption benchmark on the terminal, and its files: one model, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from rich.markup import escape
from rich.table import Table

from dinov2_noise.errors import MissingFolderError
from dinov2_noise.evaluation import corruption_compare as compare
from dinov2_noise.evaluation.corruption_cells import CLEAN
from dinov2_noise.evaluation.corruption_scores import N_SEVERITIES
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.files import atomic_path

_TITLES = {"linear": "linear probe"}


def title_of(kind: str) -> str:
    """``linear probe``, ``20-NN``."""
    return _TITLES.get(kind, f"{kind.removeprefix('knn')}-NN")


def cells_table(summary: Summary, kind: str) -> Table:
    """Accuracy per corruption and severity in per cent, its mean, and CE where all severities are there."""
    scores, values = summary.scores(kind), compare.accuracies(summary, kind)
    severities = range(1, N_SEVERITIES + 1)
    title = f"{escape(summary.model)}, {title_of(kind)}: top-1 (%)"
    table = Table("", *map(str, severities), "mean", "CE", title=title)
    for name in summary.corruptions:
        error, ce = scores.error_of.get(name), scores.ce_of.get(name)
        mean = None if error is None else 100 * (1 - error)
        found = [values.get((name, severity)) for severity in severities]
        cells = [compare.shown(None if value is None else 100 * value) for value in found]
        table.add_row(name, *cells, compare.shown(mean), compare.shown(ce))
    for name in [name for name in (CLEAN, *summary.noises) if name in summary.cells]:
        low, high = summary.record(name, kind).interval()
        accuracy = f"{100 * summary.cells[name].accuracy(kind):.1f}"
        table.add_row(name, *[""] * N_SEVERITIES, accuracy, "", style="dim" if name != CLEAN else "")
        table.caption = f"{name}: {100 * low:.1f} to {100 * high:.1f}" if name == CLEAN else table.caption
    return table


def models_table(models: Sequence[Summary], kind: str) -> Table:
    """One row per model: clean, mean of the 15, mCE, relative mCE, our noises."""
    rows = compare.rows_of(models, kind)
    table = Table("model", *next(iter(rows.values())), title=title_of(kind))
    for name, row in rows.items():
        table.add_row(escape(name), *(compare.shown(value) for value in row.values()))
    return table


def draw_model(summary: Summary, folder: Path) -> list[Path]:
    """``heatmap-KIND.png`` and ``curves-KIND.png``."""
    figures, written = _figures(), []
    for kind in summary.kinds:
        values = compare.accuracies(summary, kind)
        if not values:
            continue
        clean = _clean([summary], kind)
        noises = _noises([summary], kind)
        maps = figures.heat_maps({summary.model: values}, clean=clean, noises=noises, probe=title_of(kind))
        curves = figures.severity_curves({summary.model: values}, clean=clean, probe=title_of(kind))
        written += [_write(folder / f"heatmap-{kind}.png", maps), _write(folder / f"curves-{kind}.png", curves)]
    return written


def draw_models(models: Sequence[Summary], folder: Path) -> list[Path]:
    """``heatmaps-KIND.png`` and ``curves-KIND.png``, and for two models ``difference-KIND.png``."""
    figures, written = _figures(), []
    for kind in models[0].kinds:
        values = {model.model: compare.accuracies(model, kind) for model in models}
        if not values[models[0].model]:
            continue
        clean, probe = _clean(models, kind), title_of(kind)
        maps = figures.heat_maps(values, clean=clean, noises=_noises(models, kind), probe=probe)
        curves = figures.severity_curves(values, clean=clean, probe=probe)
        written += [_write(folder / f"heatmaps-{kind}.png", maps), _write(folder / f"curves-{kind}.png", curves)]
        if len(models) == 2:
            title = f"{models[1].model} minus {models[0].model}, {probe}"
            drawn = figures.difference_map(compare.difference(models[0], models[1], kind), title=title)
            written.append(_write(folder / f"difference-{kind}.png", drawn))
    return written


def _clean(models: Sequence[Summary], kind: str) -> dict[str, float]:
    return {model.model: model.cells[CLEAN].accuracy(kind) for model in models if CLEAN in model.cells}


def _noises(models: Sequence[Summary], kind: str) -> dict[str, dict[str, float]]:
    return {model.model: {noise: model.cells[noise].accuracy(kind) for noise in model.noises} for model in models}


def require_figures() -> None:
    """Check before a long evaluation that its pictures can be drawn.

    Raises:
        MissingFolderError: matplotlib is not installed.
    """
    _figures()


def _figures() -> ModuleType:
    try:
        from dinov2_noise.report import corruption_figures
    except ImportError as cause:
        raise MissingFolderError("pictures need matplotlib: pip install 'dinov2-noise[report]'") from cause
    return corruption_figures


def _write(path: Path, png: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)
    return path
