"""docs/img/demo-losses.png: the report's loss curves of the demo's four arms.

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

TARGET = Path(__file__).parent.parent / "img" / "demo-losses.png"
WIDTH_PX = 1350
COLOURS = 128  # of the picture, so that it stays small


def losses(output: Path) -> Image.Image:
    """The first figure of the report's section on curves."""
    section = curves_section(collect([output / "runs"]).runs)
    figure = next(block for block in section.blocks if isinstance(block, FigureBlock))
    drawn = Image.open(io.BytesIO(figure.picture)).convert("RGB")
    return drawn.resize((WIDTH_PX, round(drawn.height * WIDTH_PX / drawn.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    losses(Path(sys.argv[1])).quantize(COLOURS, dither=Image.Dither.NONE).save(TARGET, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size // 1000} kB")
