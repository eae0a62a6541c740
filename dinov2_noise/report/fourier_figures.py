"""The picture of a Fourier heat map, as PNG bytes."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dinov2_noise.evaluation.fourier_map import HeatMap
from dinov2_noise.report.figures import INK, figure_as_png

_MOST_NUMBERS = 13
"""Per axis: a finer map has no room for numbers in its cells."""


def fourier_map(heat_map: HeatMap, kind: str, *, title: str) -> bytes:
    """Accuracy lost at each frequency, in points; zero in the middle, both axes in cycles per pixel.

    Vertical frequencies grow downwards, as the rows of an image do.
    """
    drop, grid = 100 * np.array(heat_map.drop(kind)), heat_map.grid
    top = max(float(drop.max()), 1.0)
    ticks = range(0, grid.n, 1 if grid.n <= _MOST_NUMBERS else (grid.n - 1) // 8 or 1)

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        image = panel.imshow(drop, cmap="viridis", norm=Normalize(min(0.0, float(drop.min())), top))
        labels = [f"{grid.axis_cycles_per_px[tick]:.3g}" for tick in ticks]
        panel.set_xticks(list(ticks), labels, fontsize=8)
        panel.set_yticks(list(ticks), labels, fontsize=8)
        panel.set(xlabel="horizontal frequency (cycles per pixel)", ylabel="vertical frequency (cycles per pixel)")
        clean = 100 * heat_map.clean_accuracy[kind]
        panel.set_title(f"{title}: clean {clean:.1f} % of {heat_map.n_images} images", fontsize=11)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        if grid.n <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(drop):
                colour = INK if value > 0.6 * top else "white"
                panel.text(column, row, f"{round(value)}", ha="center", va="center", fontsize=8, color=colour)
        bar = figure.colorbar(image, ax=panel, label="accuracy lost (points)", fraction=0.046, pad=0.02)
        bar.outline.set_visible(False)

    return figure_as_png(draw, 1200, 1040, layout="constrained")
