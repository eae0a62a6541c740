"""Draws docs/img/loader.png: where the time of a sample goes, from a record of `benchmarks/loader.py --record`.

Usage: python docs/figures/loader.py RECORD
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dinov2_noise.report.figures import COLOURS, DPI, FAINT, STYLE

PICTURE = Path(__file__).parent.parent / "img" / "loader.png"
# Segments, from left to right, and what of the profile each holds.
SEGMENTS = {
    "decoding": ("decoding",),
    "crop and resize": ("crop and resize",),
    "brightness, contrast, saturation": ("brightness, contrast, saturation",),
    "hue": ("hue",),
    "blur": ("blur",),
    "to tensor, normalise": ("to tensor, normalise",),
    "other": ("grey, solarise, flip", "random draws", "picture to array", "the rest"),
}


def draw(profiles: dict[str, dict[str, float]], picture: Path) -> None:
    """One bar per augmentation."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 2.6), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        names, left = list(profiles), [0.0] * len(profiles)
        for (label, parts), colour in zip(SEGMENTS.items(), (*COLOURS, FAINT), strict=True):
            widths = [1e3 * sum(profiles[name].get(part, 0.0) for part in parts) for name in names]
            axes.barh(names, widths, left=left, color=colour, label=label, height=0.6)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="ms per image and worker, one core")
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    draw(json.loads(parser.parse_args().record.read_text(encoding="utf-8")), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
