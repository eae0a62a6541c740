"""Draws docs/img/noises.jpg: one photograph under every noise that `add-noise` knows.

Usage: python docs/figures/noises.py. Needs scikit-image's photographs and matplotlib (extra `demo`); a few seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from skimage import data

from dinov2_noise.noise import FAMILIES, noisy_uint8, parse
from dinov2_noise.report.figures import STYLE

FOLDER = Path(__file__).parent.parent / "img"
PATH = "chelsea.png"
CUT = (slice(20, 200), slice(95, 335))  # the cat's face
COLUMNS = 4


def main() -> None:
    clean = data.chelsea()[CUT].copy()
    names = [family.examples[1] for family in FAMILIES.values()] + ["poissongauss10_20", "gamma1", "correlated50_3"]
    panels = [("clean", clean)] + [(name, noisy_uint8(clean, parse(name), relative_path=PATH)) for name in names]
    by_family = [panels[0], *sorted(panels[1:], key=lambda panel: _order(panel[0]))]
    with rc_context(STYLE):
        rows = -(-len(by_family) // COLUMNS)
        figure = Figure(figsize=(10, 2.15 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, COLUMNS).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, (name, pixels) in zip(axes, by_family, strict=False):
            axis.imshow(pixels, interpolation="nearest")
            error = np.mean((pixels / 255 - clean / 255) ** 2)
            ratio = "" if not error else f", {10 * np.log10(np.mean((clean / 255) ** 2) / error):.1f} dB"
            axis.set_title(name + ratio, fontsize=10)
        figure.savefig(FOLDER / "noises.jpg", dpi=100, pil_kwargs={"quality": 75})


def _order(name: str) -> int:
    return list(FAMILIES).index(name.rstrip("0123456789._"))


if __name__ == "__main__":
    main()
