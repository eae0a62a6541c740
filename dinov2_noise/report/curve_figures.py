"""Curves over iterations and over noise, as PNG bytes: one small panel per quantity, all runs in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dinov2_noise.report.figures import (
    ARM_COLOURS,
    FAINT,
    INK,
    LINE_STYLES,
    MARKERS,
    SHOWN_WIDTH_PX,
    figure_as_png,
    shortened,
)

_GRID = "#e5e7eb"
_MOST_MARKED = 24  # points of a line that get a marker
_PANEL_PX, _HEAD_PX = 430, 110


@dataclass(frozen=True)
class Line:
    """One run's or arm's curve.

    Attributes:
        label: for the legend, the same in all panels. colour, style: numbers in the lists of `figures`.
        x, y: points. low, high: a band around them.
    """

    label: str
    colour: int
    style: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One quantity. ``floors``: name → height of dashed lines; ``from_zero``: the axis begins there."""

    title: str
    lines: Sequence[Line]
    floors: Mapping[str, float]
    from_zero: bool = False


def panels(
    shown: Sequence[Panel], switches: Mapping[int, str], *, columns: int = 3, width_px: int = 2 * SHOWN_WIDTH_PX
) -> bytes:
    """Small multiples over iterations.

    Args:
        shown: at least one panel.
        switches: iteration → what begins there, marked in every panel and named in the uppermost ones.
        columns: panels beside each other, at most. width_px: of the picture.

    Raises:
        ValueError: there is no panel, or none has a line.
    """
    if not shown or not any(panel.lines for panel in shown):
        raise ValueError("curves of nothing")
    columns = min(columns, len(shown)) if len(shown) > 1 else 1
    n_rows = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(n_rows, columns, squeeze=False, sharex=True).ravel()
        for number, (axis, panel) in enumerate(zip(axes, shown, strict=False)):
            _panel(axis, panel, switches, named=number < columns)
            axis.tick_params(labelbottom=True)
            if number >= len(shown) - columns:
                axis.set_xlabel("iteration", fontsize=10)
        for unused in axes[len(shown) :]:
            unused.set_visible(False)
        legend_of(figure, [line for panel in shown for line in panel.lines])

    n_legend = math.ceil(len({line.label for panel in shown for line in panel.lines}) / columns)
    height = _HEAD_PX + 34 * n_legend + _PANEL_PX * n_rows
    return figure_as_png(draw, width_px, height, layout="constrained")


def _panel(axis: Axes, panel: Panel, switches: Mapping[int, str], *, named: bool) -> None:
    axis.set_title(panel.title, loc="left", fontsize=11, fontweight="bold", pad=20 if switches and named else 8)
    axis.grid(axis="y", color=_GRID, linewidth=0.8)
    for line in panel.lines:
        _draw(axis, line)
    for iteration, name in switches.items():
        axis.axvline(iteration, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
        if named:
            place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axis.annotate(name, (iteration, 1), xytext=(0, 3), ha="center", fontsize=8.5, color=FAINT, **place)
    for name, height in panel.floors.items():
        floor_line(axis, name, height)
    _scale(axis, panel)


def _scale(axis: Axes, panel: Panel) -> None:
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axis.tick_params(labelsize=9)
    if panel.from_zero:
        axis.set_ylim(0, max(axis.get_ylim()[1], 1e-9))


def _thousands(value: float, _position: int) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _draw(axis: Axes, line: Line) -> None:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return
    x, y = zip(*points, strict=True)
    colour = ARM_COLOURS[line.colour % len(ARM_COLOURS)]
    every = max(1, len(points) // 8)
    marker: dict[str, Any] = {"marker": MARKERS[line.colour % len(MARKERS)], "markersize": 4, "markevery": every}
    if len(points) > _MOST_MARKED:
        marker["markersize"] = 3.2
    axis.plot(x, y, LINE_STYLES[line.style % 4], color=colour, linewidth=1.6, label=_label(line.label), **marker)
    if line.low is not None and line.high is not None:
        axis.fill_between(list(line.x), list(line.low), list(line.high), color=colour, alpha=0.16, linewidth=0)


def _label(name: str) -> str:
    """As matplotlib wants it, which leaves out names that begin with _."""
    return f" {name}" if name.startswith("_") else name


def floor_line(axis: Axes, name: str, height: float) -> None:
    """A dotted line with its name at the right end."""
    axis.axhline(height, color=FAINT, linewidth=1.1, linestyle=(0, (1, 2)), zorder=0.6)
    place: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axis.annotate(name, (1, height), xytext=(-2, 2), ha="right", fontsize=8.5, color=FAINT, **place)


def legend_of(figure: Figure, lines: Sequence[Line]) -> None:
    """One legend for all panels, each label once, in order of first appearance."""
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    ordered = [label for label in dict.fromkeys(_label(line.label) for line in lines) if label in handles]
    if len(ordered) > 1 or (ordered and ordered[0]):
        labels = [shortened(label, 40) for label in ordered]
        found = [handles[label] for label in ordered]
        figure.legend(
            found, labels, loc="outside upper left", ncols=_columns(figure, labels), frameon=False, fontsize=10
        )


def _columns(figure: Figure, labels: Sequence[str]) -> int:
    """As many as fit beside each other, at most 4."""
    room = figure.get_figwidth() * 100 - 20
    return max(1, min(4, len(labels), int(room // (60 + 7 * max(map(len, labels))))))


def sweep(
    shown: Sequence[Panel], *, ticks: Mapping[float, str], label: str, width_px: int = 2 * SHOWN_WIDTH_PX
) -> bytes:
    """Accuracy over noise, one panel per metric.

    Args:
        shown: lines in per cent over x.
        ticks: x → its name; clean images stand at the right end.
        label: of the axis.
        width_px: of the picture; of a narrow one panels stand below each other.
    """
    columns = min(2 if width_px > SHOWN_WIDTH_PX else 1, len(shown))
    n_rows = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(n_rows, columns, squeeze=False).ravel()
        for axis, panel in zip(axes, shown, strict=False):
            _panel(axis, panel, {}, named=False)
            _ticks(axis, ticks)
            axis.set_xlabel(label, fontsize=10)
            axis.set_ylabel("%", fontsize=10)
        for unused in axes[len(shown) :]:
            unused.set_visible(False)
        legend_of(figure, [line for panel in shown for line in panel.lines])

    return figure_as_png(draw, width_px, 150 + 640 * n_rows, layout="constrained")


def _ticks(axis: Axes, ticks: Mapping[float, str]) -> None:
    """Names below their places, the second line of one too close to its neighbour further down."""
    places = sorted(ticks)
    span = max(places) - min(places) or 1.0
    names: list[str] = []
    for before, place in zip([None, *places], places, strict=False):
        close = before is not None and place - before < 0.11 * span and not names[-1].startswith("\n")
        names.append(("\n\n" if close else "") + ticks[place])
    axis.set_xticks(places, names, fontsize=8.5)
    margin = 0.06 * span
    axis.set_xlim(min(places) - margin, max(places) + margin)
