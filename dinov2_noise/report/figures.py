"""Contact sheets and the chart of accuracies, each as PNG bytes; what all pictures of a report share.

All are drawn at twice the width they are shown at (``SHOWN_WIDTH_PX``), on white, in colours that colour-blind readers
tell apart (Okabe and Ito, 2008); marker shape or line style repeats what colour says. matplotlib's global settings are
left as they were found.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from dinov2_noise.evaluation.records import Record

SHOWN_WIDTH_PX = 900
NARROW_WIDTH_PX = 350
"""Of a picture drawn for a phone."""
DPI = 200
"""Twice the 100 px per inch at which sizes are thought of here."""

INK, FAINT = "#1f2328", "#6b7280"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
ARM_COLOURS = (*COLOURS, INK, "#8f959e")
"""Of curves, where more are needed than hues can be told apart."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
LINE_STYLES = ("-", "--", "-.", ":")
METRIC_LABELS = {"knn_top1": "k-NN", "linear_top1": "linear probe"}

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.0,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.parse_math": False,
    "figure.constrained_layout.h_pad": 0.09,
}


def contact_sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    *,
    most_cell_px: int = 2 * SHOWN_WIDTH_PX,
) -> bytes:
    """A grid of small images, each pixel enlarged to a square of whole pixels.

    Args:
        columns: title above each column; a line break is kept.
        rows: as many images per row as there are columns; sizes may differ.
        row_labels: one label left of each row.
        most_cell_px: side of a cell that is not exceeded, on a sheet of twice the width it is shown at.

    Raises:
        ValueError: rows, labels and columns do not fit together.
    """
    if not rows or len(rows) != len(row_labels) or any(len(row) != len(columns) for row in rows):
        raise ValueError("a contact sheet needs a label per row and an image per column in each row")
    gap, title_height = 8, 18 + 30 * max(title.count("\n") + 1 for title in columns)
    label_width = 24 + 15 * max(len(line) for label in row_labels for line in label.split("\n"))
    largest = max(max(image.size) for row in rows for image in row)
    cell = _cell_size(min((2 * SHOWN_WIDTH_PX - label_width) // len(columns) - gap, most_cell_px), largest)
    width, height = label_width + len(columns) * (cell + gap), title_height + len(rows) * (cell + gap)

    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            left, top = label_width + x * (cell + gap), title_height + y * (cell + gap)
            _paste(sheet[top : top + cell, left : left + cell], image)

    def draw(figure: Figure) -> None:
        figure.figimage(sheet)  # pixel for pixel, unlike imshow
        for x, title in enumerate(columns):
            centre = label_width + x * (cell + gap) + cell / 2
            _text(figure, centre / width, 1 - (title_height - 12) / height, title, ha="center", va="bottom")
        for y, label in enumerate(row_labels):
            middle = title_height + y * (cell + gap) + cell / 2
            _text(figure, (label_width - 14) / width, 1 - middle / height, label, ha="right", va="center")

    return figure_as_png(draw, width, height)


def accuracy_chart(records: Sequence[Record], floors: Mapping[str, float]) -> bytes:
    """A dot with its 95 % interval per record, grouped by arm.

    Args:
        records: arms and metrics are shown in the order they first appear in; several seeds give several dots.
        floors: name → accuracy in [0, 1], drawn as vertical lines.
    """
    if not records:
        raise ValueError("an accuracy chart of no records")
    arms = list(dict.fromkeys(record.arm for record in records))
    metrics = list(dict.fromkeys(record.metric for record in records))
    right_end = 1.12 * max(
        [*(record.interval()[1] for record in records), *floors.values()]
    )  # room for the last number

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        for row, arm in enumerate(arms):
            if row:
                panel.axhline(row - 0.5, color="#e5e7eb", linewidth=0.8)
            own = [record for record in records if record.arm == arm]
            for index, record in enumerate(own):
                _dot(panel, row + (index - (len(own) - 1) / 2) * 0.6 / len(own), record, metrics.index(record.metric))
        _floor_lines(panel, floors, right_end)
        panel.set_yticks(range(len(arms)), arms)
        panel.set_ylim(len(arms) - 0.5, -0.5)
        panel.set_xlim(0, right_end)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        panel.set_xlabel("top-1 accuracy on the validation images, with 95 % interval")
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        _legend_above(figure, [panel])

    rows = sum(max(0.9, 0.55 * sum(record.arm == arm for record in records)) for arm in arms)
    return figure_as_png(draw, 2 * SHOWN_WIDTH_PX, round(230 + 46 * len(floors) + 100 * rows), layout="constrained")


def _cell_size(room: int, largest: int) -> int:
    """Side of a cell: a whole multiple of the largest image that fits, so that most images fill their cell."""
    return largest * max(1, room // largest)


def _paste(cell: npt.NDArray[np.uint8], image: Image.Image) -> None:
    """Put ``image`` into the middle of ``cell`` (H, W, 3), in place, as large as a whole factor allows."""
    pixels = np.asarray(image.convert("RGB"))
    factor = min(cell.shape[0] // pixels.shape[0], cell.shape[1] // pixels.shape[1])
    enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    top, left = (cell.shape[0] - enlarged.shape[0]) // 2, (cell.shape[1] - enlarged.shape[1]) // 2
    cell[top : top + enlarged.shape[0], left : left + enlarged.shape[1]] = enlarged


def _text(figure: Figure, x: float, y: float, text: str, *, ha: str, va: str) -> None:
    figure.text(x, y, text, ha=ha, va=va, multialignment=ha, fontsize=9.5)


def _dot(panel: Axes, y: float, record: Record, metric: int) -> None:
    low, high = record.interval()
    colour = COLOURS[metric % len(COLOURS)]
    label = METRIC_LABELS.get(record.metric, record.metric)
    panel.plot([low, high], [y, y], "-", color=colour, linewidth=2, solid_capstyle="butt")
    panel.plot([record.value], [y], MARKERS[metric % len(MARKERS)], color=colour, markersize=7, label=label)
    panel.annotate(
        f"{100 * record.value:.1f}", (high, y), xytext=(5, 0), textcoords="offset points", va="center", color=colour
    )


def _floor_lines(panel: Axes, floors: Mapping[str, float], x_range: float) -> None:
    """A dashed line per floor with its name above it, a line of text higher where the next name is too close."""
    neighbour, height = math.inf, 0
    for name, value in sorted(floors.items(), key=lambda floor: -floor[1]):
        label = f"{name} {100 * value:.1f} %"
        height = height + 1 if neighbour - value < 0.012 * len(label) * x_range else 0
        neighbour = value
        panel.axvline(value, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
        panel.annotate(
            label,
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4 + 15 * height),
            textcoords="offset points",
            color=FAINT,
        )


def _legend_above(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, each label once."""
    found: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        columns = min(len(found), 3)
        figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=columns, frameon=False)


def shortened(name: str, most: int) -> str:
    """At most so many letters; the end of a long name is kept too, as seeds stand there."""
    kept = most - 1
    return name if len(name) <= most else f"{name[: kept - kept // 3]}…{name[len(name) - kept // 3 :]}"


def as_webp(png: bytes, quality: int = 80) -> bytes:
    """A sheet of photographs in a tenth of the bytes; noise hardly compresses without loss."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def figure_as_png(
    draw: Callable[[Figure], None], width_px: int, height_px: int, *, layout: Literal["constrained"] | None = None
) -> bytes:
    """Draw onto a new figure of exactly this size; the style applies inside only."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, facecolor="white", layout=layout)
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
