"""docs/img/report.png: the beginning of a report and its maps, as a browser shows them.

Usage: python docs/figures/report.py REPORT.html. Needs Chromium; a few seconds. The report of the picture is of the
demo: ``dinov2-noise report demo-output/runs/nct demo-output/runs/noisy demo-output/records robust``, where robust is
the example of docs/robustness.md with fewer corruptions.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).parent.parent / "img" / "report.png"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SIZE = (1180, 1480)
COLOURS = 200  # of the picture, so that it stays small


def screenshot(page: Path) -> Image.Image:
    """The page's beginning."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "page.png")
        options = [f"--user-data-dir={folder}/profile", f"--screenshot={target}", f"--window-size={SIZE[0]},{SIZE[1]}"]
        subprocess.run(["chromium", *FLAGS, *options, page.resolve().as_uri()], check=True, capture_output=True)
        return Image.open(io.BytesIO(target.read_bytes())).convert("RGB")


if __name__ == "__main__":
    screenshot(Path(sys.argv[1])).quantize(COLOURS, dither=Image.Dither.NONE).save(TARGET, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size // 1000} kB")
