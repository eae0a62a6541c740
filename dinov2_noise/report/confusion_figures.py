"""Picture of a confusion matrix, as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from dinov2_noise.report.figures import FAINT, INK, SHOWN_WIDTH_PX, figure_as_png

MOST_NUMBERS, MOST_NAMES = 12, 60
"""Classes up to which counts stand in the cells, and names at the axes."""
_CELL_PX, _LEAST_PX, _BESIDE_PX, _DARK = 44, 260, 220, 0.55


def confusion_figure(confusion: npt.NDArray[Any], classes: Sequence[str], *, title: str = "") -> bytes:
    """Rows are labels, columns what was told; colours are shares of each row, numbers are images.

    Args:
        confusion: (C, C) counts. classes: their names.

    Raises:
        ValueError: names and matrix do not fit together.
    """
    n = len(classes)
    if confusion.shape != (n, n):
        raise ValueError(f"a matrix of shape ({n}, {n}) is needed for {n} classes, not {confusion.shape}")
    side_px = min(SHOWN_WIDTH_PX - _BESIDE_PX, max(_LEAST_PX, _CELL_PX * n))

    def draw(figure: Figure) -> None:
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if n <= MOST_NUMBERS:
            _write_counts(axes, confusion, shares)
        names = [_shortened(name) for name in classes] if n <= MOST_NAMES else []
        size = 11 if n <= MOST_NUMBERS else 7
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="label")
        axes.set_title(title, loc="left")
        bar = figure.colorbar(image, ax=axes, label="share of the label's images", fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)

    return figure_as_png(draw, 2 * (side_px + _BESIDE_PX), 2 * (side_px + _BESIDE_PX - 40), layout="constrained")


def _write_counts(axes: Any, confusion: npt.NDArray[Any], shares: npt.NDArray[Any]) -> None:
    for row in range(len(confusion)):
        for column in range(len(confusion)):
            count = int(confusion[row, column])
            colour = "white" if shares[row, column] > _DARK else (INK if count else FAINT)
            axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=colour)


def _shortened(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
