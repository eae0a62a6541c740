"""Draws docs/img/ranges.jpg: one 16-bit frame of a star field as DINOv2's decoder reads it, and under our ranges.

Usage: python docs/figures/ranges.py. The frame is made from a photograph inside the scikit-image wheel: its display
stretch is undone, then counts of a sky background and photon noise are added. Needs matplotlib (extra `report`) and
scikit-image; a few seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from dinov2_noise.decoding import load_rgb, parse_range
from dinov2_noise.report.figures import STYLE

TARGET = Path(__file__).parent.parent / "img" / "ranges.jpg"
RANGES = ("dtype", "fixed:700,6000", "percentile:0.5,99.5", "asinh")
BACKGROUND, BRIGHTEST, COUNTS_PER_PHOTON, READ_NOISE = 800, 40000, 1.5, 5
DETAIL = (slice(150, 550), slice(80, 560))


def frame() -> NDArray[np.uint16]:
    """(H, W) counts of a 16-bit camera."""
    shown = data.hubble_deep_field()[DETAIL].mean(axis=2) / 255
    linear = np.sinh(shown * np.arcsinh(50)) / 50
    truth = BACKGROUND + BRIGHTEST * (linear - linear.min()) / (linear.max() - linear.min())
    rng = np.random.default_rng(0)
    counts = COUNTS_PER_PHOTON * rng.poisson(truth / COUNTS_PER_PHOTON) + rng.normal(0, READ_NOISE, truth.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def versions(path: Path) -> dict[str, Image.Image]:
    with Image.open(path) as image:  # what upstream's ImageDataDecoder does
        panels = {"DINOv2's own decoder": image.convert("RGB")}
    return panels | {f"range {name}": load_rgb(path, parse_range(name)) for name in RANGES}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.png"
        Image.fromarray(frame()).save(path)
        panels = versions(path)
    figure = Figure(figsize=(13, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, image) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        pixels = np.asarray(image)
        axes.imshow(pixels, interpolation="antialiased")
        axes.set(xticks=[], yticks=[], xlabel=f"{len(np.unique(pixels))} of 256 gray levels")
        axes.set_title(title, fontsize=11)
        axes.spines[:].set_visible(True)  # the first panel is as white as the page
    figure.savefig(TARGET, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    with rc_context(STYLE):
        main()
