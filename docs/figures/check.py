"""Draws docs/img/check-noise.png: what `dinov2-noise check` reads from noisy images alone, beside what is true.

Usage: python docs/figures/check.py. Needs scikit-image's photographs (extra `demo`); some seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from dinov2_noise.check import check
from dinov2_noise.check.noise import NoiseFindings
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.audit import correlation
from dinov2_noise.noise.clipping import stored
from dinov2_noise.report.figures import STYLE

FILE = Path(__file__).parent.parent / "img" / "check-noise.png"
PHOTOGRAPHS = (data.astronaut, data.chelsea, data.coffee, data.rocket)
CROP_PX = 224
NOISES = {"gauss50": "tab:blue", "shot10": "tab:orange", "speckle0.4": "tab:green"}
Pixels = NDArray[np.uint8]


def clean() -> list[Pixels]:
    return [photograph()[64 : 64 + CROP_PX, 64 : 64 + CROP_PX] for photograph in PHOTOGRAPHS]


def noisy(name: str) -> list[Pixels]:
    return [noisy_uint8(image, parse(name), relative_path=f"{number}.png") for number, image in enumerate(clean())]


def found_in(images: list[Pixels]) -> NoiseFindings:
    """As for a folder of which nothing is known."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            Image.fromarray(image).save(Path(folder, f"{number}.png"))
        found = check(folder, workers=1, progress=False).noise
    assert found is not None
    return found


def draw_levels(axes: Axes, found: dict[str, NoiseFindings]) -> None:
    for name, colour in NOISES.items():
        truth, curve = stored(parse(name), np.linspace(0, 1, 257)), found[name].curve
        assert curve is not None
        axes.plot(255 * truth.mean, 255 * truth.std, color=colour, linewidth=1, alpha=0.6)
        axes.plot(curve.mean_255, curve.std_255, "o", color=colour, markersize=4, label=name)
    axes.set_title("Level by intensity: estimated (dots), true (lines)")
    axes.set_xlabel("mean of the stored values")
    axes.set_ylabel("standard deviation")
    axes.legend()


def draw_bias(axes: Axes, found: dict[str, NoiseFindings]) -> None:
    for name, colour in NOISES.items():
        bias = found[name].bias
        assert bias is not None
        errors = [noise.astype(float) - image for noise, image in zip(noisy(name), clean(), strict=True)]
        values, error = np.stack(clean()).ravel(), np.stack(errors).ravel()
        bins = values // 16
        counts = np.bincount(bins, minlength=16)
        centres, means = (np.bincount(bins, column, 16) / counts for column in (values, error))
        axes.plot(centres, means, color=colour, linewidth=1, alpha=0.6)
        axes.plot(bias.clean_255, bias.bias_255, "o", color=colour, markersize=4, label=name)
    axes.axhline(0, color="gray", linewidth=0.5)
    axes.set_title("Bias: predicted (dots), measured with clean images (lines)")
    axes.set_xlabel("true intensity")
    axes.set_ylabel("mean of noisy - clean")
    axes.legend()


def draw_saturation(axes: Axes) -> None:
    for name, colour in (("clean", "black"), ("gauss100", "tab:red")):
        images = clean() if name == "clean" else noisy(name)
        shares = np.bincount(np.stack(images).ravel(), minlength=256) / np.stack(images).size
        axes.step(np.arange(256), 100 * shares, color=colour, where="mid", linewidth=1, label=name)
        if name != "clean":
            for value, share in ((0, shares[0]), (255, shares[255])):
                axes.annotate(
                    f"{100 * share:.0f} % at {value}",
                    (value, 100 * share),
                    xytext=(value + (12 if value == 0 else -12), 100 * share * 0.9),
                    ha="left" if value == 0 else "right",
                    color=colour,
                )
    axes.set_title("Saturation: clipped noise piles up at black and white")
    axes.set_xlabel("stored value")
    axes.set_ylabel("pixels, %")
    axes.legend(loc="upper center")


def correlated(radius_px: float) -> list[Pixels]:
    images = []
    for number, image in enumerate(clean()):
        noise = np.random.default_rng(number).normal(size=image.shape)
        noise = gaussian_filter(noise, (radius_px, radius_px, 0))
        images.append(np.clip(image + noise * (40 / noise.std()), 0, 255).astype(np.uint8))
    return images


def draw_map(axes: Axes, images: list[Pixels], title: str) -> None:
    """Lags that are not measured stay grey."""
    found = correlation([image.transpose(2, 0, 1) for image in images])
    cells = np.full((5, 5), np.nan)
    cells[2, 2] = 1
    for (down, right), value in found.autocorrelation.items():
        for sign_down in (-1, 1):
            for sign_right in (-1, 1):
                cells[2 + sign_down * down, 2 + sign_right * right] = value
    axes.set_facecolor("0.85")
    axes.imshow(cells, vmin=-1, vmax=1, cmap="RdBu_r", extent=(-2.5, 2.5, 2.5, -2.5))
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            colour = "white" if value > 0.6 else "black"
            axes.text(
                column - 2, row - 2, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_title(f"{title}: {found.verdict}")
    axes.set_xlabel("px right")
    axes.set_ylabel("px down")
    axes.set_xticks(range(-2, 3))
    axes.set_yticks(range(-2, 3))
    axes.grid(visible=False)


def main() -> None:
    found = {name: found_in(noisy(name)) for name in NOISES}
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1)
    left, right = upper.subplots(1, 2)
    draw_levels(left, found)
    draw_bias(right, found)
    histogram, white, blurred = lower.subplots(1, 3, width_ratios=(1.3, 1, 1))
    draw_saturation(histogram)
    draw_map(white, noisy("gauss50"), "White noise")
    draw_map(blurred, correlated(0.7), "Noise blurred by 0.7 px")
    figure.savefig(FILE)


if __name__ == "__main__":
    with rc_context(STYLE):
        main()
