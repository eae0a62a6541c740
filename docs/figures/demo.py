"""docs/img/demo-losses.png and demo-measured.png: two figures of the report on the demo's four arms.

Usage: python docs/figures/demo.py demo-output. Seconds.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from dinov2_noise.report.collect import collect
from dinov2_noise.report.curves import curves_section
from dinov2_noise.report.html import FigureBlock

IMAGES = Path(__file__).parent.parent / "img"
PICTURES = {"Losses": "demo-losses.png", "Measured while training": "demo-measured.png"}
WIDTH_PX = 1350
COLOURS = 128  # of a picture, so that it stays small


def figures(output: Path) -> dict[str, Image.Image]:
    """Those of the report's section on curves, by their titles."""
    blocks = curves_section(collect([output / "runs"]).runs).blocks
    return {block.title: _opened(block.picture) for block in blocks if isinstance(block, FigureBlock)}


def _opened(picture: bytes) -> Image.Image:
    drawn = Image.open(io.BytesIO(picture)).convert("RGB")
    return drawn.resize((WIDTH_PX, round(drawn.height * WIDTH_PX / drawn.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    drawn = figures(Path(sys.argv[1]))
    for title, name in PICTURES.items():
        target = IMAGES / name
        drawn[title].quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
        print(f"{target}: {target.stat().st_size // 1000} kB")
