"""The toy's picture: accuracy of each arm, a dot per seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dinov2_noise.report.figures import COLOURS, FAINT, INK, SHOWN_WIDTH_PX, figure_as_png
from dinov2_noise.toy.arms import ARMS
from dinov2_noise.toy.digits import MNIST, MNIST_5000

PUBLISHED = {("noisy", "noisy"): 0.6455, ("clean-to-noisy", "noisy"): 0.8305}
"""With 60,000 digits; "Ditch the Denoiser", arXiv 2505.12191."""

_PUBLISHED_LABEL = "published, 60,000 digits"
_KIND_STYLE = {"noisy": ("o", COLOURS[0]), "clean": ("s", COLOURS[2]), "denoised": ("^", COLOURS[1])}


def draw(summary: Mapping[str, Any]) -> bytes:
    """A row for each arm and kind of digits: a dot per seed, mean and standard deviation; as PNG.

    Args:
        summary: see `dinov2_noise.toy.experiment.summarise`.
    """
    rows = [
        (arm, kind, result) for arm in ARMS.values() for kind, result in summary["results"].get(arm.name, {}).items()
    ]

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        for y, (arm, kind, result) in enumerate(rows):
            _row(panel, y, kind, result)
            if (arm.name, kind) in PUBLISHED and summary["data"]["name"].lower() in (MNIST, MNIST_5000):
                panel.plot(
                    PUBLISHED[arm.name, kind],
                    y,
                    "D",
                    markerfacecolor="none",
                    markeredgecolor=INK,
                    label=_PUBLISHED_LABEL,
                )
        panel.axvline(summary["chance"], color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0, label="chance")
        panel.set_yticks(range(len(rows)), [f"{arm.title}\nprobed on {kind} digits" for arm, kind, _ in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        panel.set_xlabel(f"accuracy of a linear probe on {summary['data']['test']:,} test digits")
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        _legend(figure, panel)

    return figure_as_png(paint, 2 * SHOWN_WIDTH_PX, 210 + 120 * len(rows), layout="constrained")


def _row(panel: Axes, y: int, kind: str, result: Mapping[str, Any]) -> None:
    marker, colour = _KIND_STYLE[kind]
    values, mean, std = result["values"], result["mean"], result["std"]
    panel.plot(
        values, [y] * len(values), marker, color=colour, markersize=6, alpha=0.55, label=f"a seed, {kind} digits"
    )
    panel.plot([mean, mean], [y - 0.24, y + 0.24], "-", color=colour, linewidth=2.4)
    panel.plot([mean - (std or 0), mean + (std or 0)], [y, y], "-", color=colour, linewidth=2)
    spread = "" if std is None else f" ± {100 * std:.1f}"
    panel.annotate(
        f"{100 * mean:.1f}{spread}",
        (mean, y - 0.24),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        color=colour,
    )


def _legend(figure: Figure, panel: Axes) -> None:
    found = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=3, frameon=False)
