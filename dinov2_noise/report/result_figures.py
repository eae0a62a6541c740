"""A dot and its interval per arm, places below each other, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dinov2_noise.report.figures import COLOURS, FAINT, INK, SHOWN_WIDTH_PX, figure_as_png, shortened
from dinov2_noise.report.spread import Group, Place

_ROW_PX = 58
_LABEL_PX = 50  # per letter of an arm's name: half of the picture is for the results
_CHARACTER_PX = 26  # of a heading, at most


class _Floor(NamedTuple):
    name: str
    value: float
    number: int


def spread_chart(
    places: Mapping[Place, Sequence[Group]],
    floors: Mapping[Place, Mapping[str, float]],
    *,
    width_px: int = 2 * SHOWN_WIDTH_PX,
) -> bytes:
    """Means over seeds with the interval over images, single seeds beside them; a dotted line per floor of a place.

    Args:
        places, floors: see `results`. width_px: of the picture, twice the width it is shown at.

    Raises:
        ValueError: there are no groups.
    """
    rows = _rows(places, floors)
    if not any(isinstance(row, Group) for _, row in rows):
        raise ValueError("a chart of no results")
    highest = max([_top(row) for _, row in rows if isinstance(row, Group)])
    highest = max([highest, *(value for lines in floors.values() for value in lines.values())])

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        labels = []
        for y, (place, row) in enumerate(rows):
            labels.append(shortened(row.arm, width_px // _LABEL_PX) if isinstance(row, Group) else "")
            if isinstance(row, Group):
                _arm(panel, y, row)
            elif isinstance(row, str):
                _note(
                    panel,
                    shortened(row, width_px // _CHARACTER_PX),
                    (0, y),
                    (4, -5),
                    fontsize=10,
                    fontweight="bold",
                    color=INK,
                )
            else:
                _floor(panel, y, row, len(places[place]), at_right=row.value > 0.5 * highest)
        panel.set_yticks(range(len(rows)), labels)
        panel.set_ylim(len(rows) - 0.4, -0.7)
        panel.set_xlim(0, highest * (1 + 220 / width_px))  # room for the last number
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        panel.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)

    return figure_as_png(draw, width_px, 120 + _ROW_PX * len(rows), layout="constrained")


def _rows(
    places: Mapping[Place, Sequence[Group]], floors: Mapping[Place, Mapping[str, float]]
) -> list[tuple[Place, Group | str | _Floor]]:
    """The name of each place, its arms, best first, and a row for the name of each floor."""
    found: list[tuple[Place, Group | str | _Floor]] = []
    for place, own in places.items():
        found.append((place, place.shown))
        found += [(place, group) for group in sorted(own, key=lambda group: -group.mean)]
        found += [(place, _Floor(*floor, number)) for number, floor in enumerate(floors.get(place, {}).items())]
    return found


def _top(group: Group) -> float:
    return max(group.interval[1], *(record.value for record in group.records))


def _floor(panel: Axes, y: int, floor: _Floor, n_arms: int, *, at_right: bool) -> None:
    """A line through the arms above, and its name in a row of its own, at the side where there is room."""
    top = y - floor.number - n_arms - 0.5
    panel.plot([floor.value] * 2, [top, y + 0.25], color=FAINT, linewidth=1.3, linestyle=(0, (1, 2)))
    side, offset = ("right", -4) if at_right else ("left", 4)
    text = f"{floor.name} {100 * floor.value:.1f}"
    _note(panel, text, (floor.value, y), (offset, -4), fontsize=8.5, color=FAINT, ha=side)


def _note(panel: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    note = panel.annotate(text, place, xytext=offset, textcoords="offset points", **style)
    note.set_in_layout(False)  # a long one must not narrow the chart


def _arm(panel: Axes, y: int, group: Group) -> None:
    low, high = group.interval
    colour = COLOURS[0]
    panel.plot([low, high], [y, y], "-", color=colour, linewidth=4, alpha=0.35, solid_capstyle="round")
    if group.n_seeds > 1:
        values = [record.value for record in group.records]
        panel.plot(values, [y + 0.22] * len(values), "o", color=colour, markersize=3.5, alpha=0.8)
    panel.plot([group.mean], [y], "o", color=colour, markersize=7.5)
    text = f"{100 * group.mean:.1f}"
    if group.deviation is not None:
        text += f" ± {100 * group.deviation:.1f}"
    _note(panel, text, (high, y), (6, 0), va="center", fontsize=9.5, color=INK)
