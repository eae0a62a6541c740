"""Pictures of a corruption benchmark, as PNG bytes: heat maps, models side by side, curves over severity."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dinov2_noise.evaluation.corruption_scores import ALEXNET_ERROR, N_SEVERITIES
from dinov2_noise.report.figures import COLOURS, FAINT, INK, LINE_STYLES, MARKERS, SHOWN_WIDTH_PX, figure_as_png

Values = Mapping[tuple[str, int], float]
"""By (corruption, severity); cells that are not there stay white."""

_ROW_PX, _DARK = 46, 0.55


def heat_maps(
    models: Mapping[str, Values],
    *,
    clean: Mapping[str, float] | None = None,
    noises: Mapping[str, Mapping[str, float]] | None = None,
    probe: str = "",
) -> bytes:
    """Models side by side, corruption x severity, values in [0, 1] written into the cells in per cent.

    One colour scale from 0 to the largest value. Corruptions that do not enter the mCE stand below a gap, and below
    another our noises, which have no severity: a whole row each.

    Args:
        clean: accuracy on clean images, for the titles. noises: model → noise → accuracy. probe: what classified, for
            the legend.

    Raises:
        ValueError: no model, or one without cells.
    """
    known, singles = clean or {}, noises or {}
    found = [value for part in (models, singles) for values in part.values() for value in values.values()]
    titles = {
        name: _wrapped(name, len(models)) + (f"\nclean {100 * known[name]:.1f}" if name in known else "")
        for name in models
    }
    titled = {titles[name]: values for name, values in models.items()}
    below = {titles[name]: singles.get(name, {}) for name in models}
    return _panels(titled, below, _label(probe), "viridis", (0.0, 100 * max([*found, 0.01])), signed=False)


def difference_map(values: Values, *, title: str) -> bytes:
    """Differences in [-1, 1], in points, blue above and red below zero."""
    reach = 100 * max((abs(value) for value in values.values()), default=0.01)
    return _panels({title: values}, {}, "difference (points)", "RdBu", (-max(reach, 1), max(reach, 1)), signed=True)


def severity_curves(
    models: Mapping[str, Values], *, clean: Mapping[str, float], probe: str = "", columns: int = 5
) -> bytes:
    """A small panel per corruption: accuracy over severity, one line per model; severity 0 is the clean image."""
    names = _rows(models.values())
    n_rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, name in zip(axes, names, strict=False):
            _curves(panel, name, models, clean)
        for unused in axes[len(names) :]:
            unused.set_visible(False)
        for lowest in axes[max(0, len(names) - columns) : len(names)]:
            lowest.tick_params(labelbottom=True)  # also above a place without panel
        axes[0].set_xticks(range(N_SEVERITIES + 1))
        axes[0].set_ylim(0, 1.05 * axes[0].get_ylim()[1])  # shared by all
        figure.supxlabel("severity (0: clean)", fontsize=11)
        figure.supylabel(_label(probe), fontsize=11)
        if len(models) > 1:
            # A label that begins with _ would be left out.
            labels = [f" {name}" if name.startswith("_") else name for name in models]
            figure.legend(axes[0].lines, labels, loc="outside upper left", ncols=min(len(labels), 4), frameon=False)

    return figure_as_png(draw, 2 * SHOWN_WIDTH_PX, 150 + 330 * n_rows, layout="constrained")


def _curves(panel: Axes, name: str, models: Mapping[str, Values], clean: Mapping[str, float]) -> None:
    panel.set_title(_readable(name), fontsize=10.5)
    panel.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    for index, (model, values) in enumerate(models.items()):
        points = {0: clean[model]} if model in clean else {}
        points |= {severity: value for (corruption, severity), value in values.items() if corruption == name}
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linewidth": 1.6, "markersize": 3.5}
        heights = [100 * points[severity] for severity in sorted(points)]
        panel.plot(sorted(points), heights, LINE_STYLES[index % 4], marker=MARKERS[index % len(COLOURS)], **style)


def _panels(
    models: Mapping[str, Values],
    whole_rows: Mapping[str, Mapping[str, float]],
    label: str,
    colours: str,
    limits: tuple[float, float],
    *,
    signed: bool,
) -> bytes:
    if not models or not all(models.values()):
        raise ValueError("a heat map needs at least one model with cells")
    rows = _rows(models.values())
    columns = sorted({severity for values in models.values() for _, severity in values})
    n_standard = sum(row in ALEXNET_ERROR for row in rows)
    names = list(dict.fromkeys(name for values in whole_rows.values() for name in values))
    gaps = [gap for gap in (n_standard, len(rows)) if 0 < gap < len(rows) + len(names)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
        for panel, (title, values) in zip(axes, models.items(), strict=True):
            grid = np.array([[100 * values.get((row, column), np.nan) for column in columns] for row in rows])
            _write_values(panel, grid, limits, signed=signed)
            single = np.array([[100 * whole_rows.get(title, {}).get(name, np.nan)] for name in names])
            _write_values(
                panel, single.reshape(-1, 1), limits, signed=signed, first=(len(rows), (len(columns) - 1) / 2)
            )
            grid = np.concatenate([grid, single.repeat(len(columns), axis=1)]) if names else grid
            image = panel.imshow(grid, cmap=colours, norm=Normalize(*limits), aspect="auto")
            for gap in gaps:
                panel.axhline(gap - 0.5, color="white", linewidth=5)
            panel.set_title(title, fontsize=11 if len(models) < 5 else 8.5)
            panel.set_xticks(range(len(columns)), columns)
            panel.set_xlabel("severity")
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
        axes[0].set_yticks(range(len(rows) + len(names)), [_readable(row) for row in [*rows, *names]])
        figure.colorbar(image, ax=list(axes), label=label, fraction=0.05, pad=0.015).outline.set_visible(False)

    width = min(2 * SHOWN_WIDTH_PX, 500 + 520 * len(models))
    return figure_as_png(draw, width, 220 + _ROW_PX * max(6, len(rows) + len(names)), layout="constrained")


def _write_values(
    panel: Axes,
    grid: npt.NDArray[np.float64],
    limits: tuple[float, float],
    *,
    signed: bool,
    first: tuple[float, float] = (0, 0),
) -> None:
    """``first``: row and column of the panel where the grid begins."""
    for place_in_grid, value in np.ndenumerate(grid):
        row, column = first[0] + place_in_grid[0], first[1] + place_in_grid[1]
        if np.isnan(value):
            panel.text(column, row, "–", ha="center", va="center", fontsize=8, color=FAINT)
            continue
        place = (value - limits[0]) / (limits[1] - limits[0])
        dark = abs(place - 0.5) > 0.3 if signed else place < _DARK
        whole = round(value)
        text = f"{whole:+d}".replace("-", "−").replace("+0", "0") if signed else f"{whole}"
        panel.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)


def _rows(values: Any) -> list[str]:
    """The corruptions of the mCE, then others, each in order of first appearance."""
    names = dict.fromkeys(name for cells in values for name, _ in cells)
    return sorted(names, key=lambda name: name not in ALEXNET_ERROR)


def _label(probe: str) -> str:
    return f"top-1 accuracy (%), {probe}" if probe else "top-1 accuracy (%)"


def _wrapped(name: str, n_panels: int) -> str:
    return "\n".join(wrap(name, max(10, 64 // n_panels))) or name


def _readable(name: str) -> str:
    return name.replace("_", " ")
