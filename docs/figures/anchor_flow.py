"""Draw docs/img/anchor-flow.png: who sees what in an anchored stage, with real crops of one noisy photograph.

Usage: python docs/figures/anchor_flow.py DEMO_OUTPUT (a folder that `make demo` has filled)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dinov2_noise import plugin
from dinov2_noise.demo.recipe import Recipe
from dinov2_noise.report.figures import COLOURS, FAINT, INK

OUTPUT = Path(__file__).parent.parent / "img" / "anchor-flow.png"
CELL, NUMBER, SECOND_STAGE = 55, 64, 1  # a cell in which something can be recognised
BLUE, RED, GREEN = COLOURS[0], COLOURS[1], COLOURS[2]


def crops(demo: Path, work: Path) -> Any:
    """Crops of one training cell in the anchored stage, by upstream's own data pipeline."""
    plugin.activate()
    from dinov2_noise.upstream import preview

    recipe = Recipe.load()
    (arm,) = (arm for arm in recipe.arms if arm.name == "nct")
    dataset = f"ImageNet:split=TRAIN:root={demo / 'noisy'}:denoised={demo / 'denoised'}"
    recipe.write_config(arm, dataset, work)
    return preview.crops(work, index=CELL, stage=SECOND_STAGE, number=NUMBER)


def box(axes: Any, x: float, y: float, text: str, colour: str, width: float = 1.9) -> None:
    patch = FancyBboxPatch(
        (x, y - 0.32), width, 0.64, boxstyle="round,pad=0.06", facecolor="white", edgecolor=colour, lw=2
    )
    axes.add_patch(patch)
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=11, color=INK)


def arrow(
    axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str = FAINT, style: str = "-"
) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=16, color=colour, lw=1.8, linestyle=style)
    )


def picture(axes: Any, image: Any, x: float, y: float, side: float) -> None:
    axes.imshow(np.asarray(image), extent=(x, x + side, y - side / 2, y + side / 2), interpolation="nearest", zorder=2)


def draw(made: Any) -> None:
    figure, axes = plt.subplots(figsize=(11, 5.4), layout="constrained")
    for row, (key, label) in enumerate(
        (("global_crops", "noisy global crops"), ("global_crops_anchor", "their denoised twins"))
    ):
        y = 4.5 - 3.6 * row
        for place, image in enumerate(made[key]):
            picture(axes, image, 0.1 + 1.15 * place, y, 1.05)
        axes.text(1.2, y - 0.78, label, ha="center", fontsize=11, color=INK)
    for place, image in enumerate(made["local_crops"]):
        picture(axes, image, 0.4 + 0.85 * place, 2.85, 0.7)
    axes.text(1.2, 2.3, "noisy local crops", ha="center", fontsize=11, color=INK)
    box(axes, 3.3, 4.9, "EMA teacher", BLUE)
    box(axes, 3.3, 3.5, "student", INK)
    box(axes, 3.3, 0.9, "frozen teacher", RED)
    for y, target in ((4.5, 4.9), (4.4, 3.6), (2.85, 3.4)):
        arrow(axes, (2.35, y), (3.2, target))
    arrow(axes, (2.35, 0.9), (3.2, 0.9))
    arrow(axes, (4.25, 3.9), (4.25, 4.5), BLUE, ":")
    axes.text(4.35, 4.2, "EMA", fontsize=10, color=BLUE, va="center")
    box(axes, 5.9, 4.9, "teacher's heads", BLUE)
    box(axes, 5.9, 3.5, "student's heads", INK)
    box(axes, 5.9, 0.9, "teacher's heads", BLUE)
    for y in (4.9, 3.5, 0.9):
        arrow(axes, (5.3, y), (5.8, y))
    arrow(axes, (6.85, 3.1), (6.85, 1.4), "white")
    axes.text(
        6.85, 0.28, "heads: ema (published)\nor its own: frozen", ha="center", va="top", fontsize=9.5, color=FAINT
    )
    box(axes, 8.9, 4.4, "DINO + iBOT\n+ KoLeo", GREEN, 2.1)
    box(axes, 8.9, 2.0, "anchor: DINO local,\nDINO global, iBOT", RED, 2.1)
    arrow(axes, (7.9, 4.9), (8.8, 4.6), BLUE)
    arrow(axes, (7.9, 3.6), (8.8, 4.2), INK)
    arrow(axes, (7.9, 3.4), (8.8, 2.2), INK)
    arrow(axes, (7.9, 0.9), (8.8, 1.8), RED)
    axes.text(
        9.95, 3.2, "loss  =  the first  +  weight · the second", ha="center", va="center", fontsize=10.5, color=INK
    )
    axes.text(1.2, -0.55, "same crop, flip, colour jitter, blur for both", ha="center", fontsize=9.5, color=FAINT)
    axes.set(xlim=(0, 11.2), ylim=(-0.8, 5.5), aspect="equal")
    axes.axis("off")
    figure.savefig(OUTPUT, dpi=160)


if __name__ == "__main__":
    demo_output = Path(sys.argv[1])
    draw(crops(demo_output, demo_output / "configs" / "figure.yaml"))
