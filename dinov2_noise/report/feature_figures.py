"""Sheets of images with their maps of tokens, and of queries with their neighbours, as WebP bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from dinov2_noise.report.figures import COLOURS, FAINT, INK, SHOWN_WIDTH_PX, as_webp, figure_as_png, shortened

_WIDTH = 2 * SHOWN_WIDTH_PX
_LABEL_PX, _GAP_PX = 130, 14
_LONGEST = 18
_RIGHT, _WRONG = COLOURS[2], COLOURS[1]


class Neighbour(NamedTuple):
    """An image with its class in words; ``cosine`` and ``is_right`` are None for a query, or without labels."""

    image: Image.Image
    name: str
    cosine: float | None
    is_right: bool | None


def map_sheet(columns: Sequence[str], rows: Mapping[str, Sequence[Image.Image]]) -> bytes:
    """One column per image; maps are enlarged without blurring their cells."""
    cell = min(240, (_WIDTH - _LABEL_PX) // len(columns) - _GAP_PX)
    top = 44
    width, height = _LABEL_PX + len(columns) * (cell + _GAP_PX), top + len(rows) * (cell + _GAP_PX)

    def draw(figure: Figure) -> None:
        for number, (label, images) in enumerate(rows.items()):
            y = top + number * (cell + _GAP_PX)
            _text(figure, _LABEL_PX - 16, y + cell / 2, label, (width, height), ha="right")
            for column, image in enumerate(images):
                _image(figure, image, (_LABEL_PX + column * (cell + _GAP_PX), y, cell), (width, height))
        for column, name in enumerate(columns):
            centre = _LABEL_PX + column * (cell + _GAP_PX) + cell / 2
            _text(figure, centre, top / 2, _short(name), (width, height))

    return as_webp(figure_as_png(draw, width, height))


def neighbour_sheet(
    rows: Sequence[tuple[Neighbour, Sequence[Neighbour]]], shown: Callable[[Image.Image], Image.Image]
) -> bytes:
    """A row per query: it, a gap, and its neighbours, nearest first.

    A right one has a green frame and a tick in its caption, a wrong one an orange dashed frame and a cross.

    Args:
        rows: (query, neighbours), as many in each.
        shown: from an image to what is drawn, a square.
    """
    count = len(rows[0][1])
    query_gap, caption, top = 50, 66, 50
    cell = min(230, (_WIDTH - query_gap) // (count + 1) - _GAP_PX)
    step = cell + caption + _GAP_PX
    width, height = (count + 1) * (cell + _GAP_PX) + query_gap, top + len(rows) * step
    size = (width, height)

    def draw(figure: Figure) -> None:
        _text(figure, cell / 2, top / 2, "query", size, weight="bold")
        for column in range(count):
            left = query_gap + (column + 1) * (cell + _GAP_PX)
            _text(figure, left + cell / 2, top / 2, f"nearest {column + 1}", size, weight="bold")
        for row, (query, others) in enumerate(rows):
            y = top + row * step
            _image(figure, shown(query.image), (0, y, cell), size)
            _text(figure, cell / 2, y + cell + caption / 2, _short(query.name), size)
            for column, other in enumerate(others):
                left = query_gap + (column + 1) * (cell + _GAP_PX)
                _image(figure, shown(other.image), (left, y, cell), size)
                _marked(figure, other, (left, y, cell), caption, size)

    return as_webp(figure_as_png(draw, width, height))


Square = tuple[float, float, float]
"""Left, top and side in px."""


def _marked(figure: Figure, other: Neighbour, square: Square, caption: float, size: tuple[int, int]) -> None:
    left, top, side = square
    if other.is_right is not None:
        colour, line = (_RIGHT, "-") if other.is_right else (_WRONG, (0, (3, 2)))
        box = (left / size[0], 1 - (top + side) / size[1])
        frame = Rectangle(
            box, side / size[0], side / size[1], fill=False, edgecolor=colour, linewidth=2.4, linestyle=line
        )
        figure.add_artist(frame)
    mark = {True: "✓ ", False: "✗ ", None: ""}[other.is_right]
    cosine = "" if other.cosine is None else f"cosine {other.cosine:.2f}"
    text = "\n".join(filter(None, (f"{mark}{_short(other.name)}".strip(), cosine)))
    colour = {True: INK, False: INK, None: FAINT}[other.is_right]
    _text(figure, left + side / 2, top + side + caption / 2, text, size, color=colour)


def _image(figure: Figure, image: Image.Image, square: Square, size: tuple[int, int]) -> None:
    left, top, side = square
    axis = figure.add_axes((left / size[0], 1 - (top + side) / size[1], side / size[0], side / size[1]))
    axis.imshow(image, interpolation="nearest", aspect="equal")
    axis.set_axis_off()


def _text(
    figure: Figure, x: float, y: float, text: str, size: tuple[int, int], *, ha: str = "center", **style: str
) -> None:
    figure.text(x / size[0], 1 - y / size[1], text, ha=ha, va="center", fontsize=8.5, multialignment="center", **style)  # type: ignore[arg-type]


def _short(name: str) -> str:
    return shortened(name.rsplit("/", 1)[-1].replace("_", " "), _LONGEST)
