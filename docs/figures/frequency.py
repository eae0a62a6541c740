"""Draws docs/img/low-pass.png, patches.png and low-resolution.png: what the frequency filters do to a photograph.

Usage: python docs/figures/frequency.py. Needs scikit-image's photographs (extra `demo`); a few seconds. Prints how the
spectrum of small crops compares with that of filtered ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from dinov2_noise.augment.low_pass import FILTERS, low_pass_image, transfer
from dinov2_noise.augment.patches import BlurPatch, GaussianPatch
from dinov2_noise.report.figures import COLOURS, FAINT, INK, LINE_STYLES, STYLE

FOLDER = Path(__file__).parent.parent / "img"
SIDE, SMALL = 224, 112
CUTOFFS = (0.03, 0.06, 0.12, 0.25)
BOX = (105, 0, 329, 224)  # of the astronaut: 224 of its 512 pixels, face and flag
SEEDS = (1, 6, 38, 31, 4)
DETAIL = (64, 30, 160, 126)  # of the crop, to see what filters change
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "hubble_deep_field")
DPI_FILE = 100
BICUBIC = Image.Resampling.BICUBIC
Make = Callable[[Image.Image], Image.Image]


def photograph() -> Image.Image:
    return Image.fromarray(data.astronaut()).crop(BOX)


def show(axes: Any, image: Image.Image, title: str = "") -> None:
    axes.imshow(np.asarray(image), interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI_FILE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_low_pass() -> None:
    """Rows: kinds. Columns: cut-offs, and the gain along an axis of the spectrum."""
    figure, image = canvas(12, 6.6), photograph()
    left, right = figure.subfigures(1, 2, width_ratios=(4.2, 1.4))
    for kind, panels in zip(FILTERS, left.subplots(len(FILTERS), len(CUTOFFS)), strict=True):
        for cutoff, panel in zip(CUTOFFS, panels, strict=True):
            title = f"{kind}, {cutoff} cycles/px"
            show(panel, low_pass_image(image, cutoff, kind), title)
    for kind, curves in zip(FILTERS, right.subplots(len(FILTERS), 1), strict=True):
        for number, cutoff in enumerate(CUTOFFS):
            gains = transfer(2, 2000, cutoff, kind)[0]
            frequency = np.linspace(0, 0.5, len(gains))
            curves.plot(frequency, gains, LINE_STYLES[number], color=COLOURS[number], label=f"{cutoff}")
        curves.set(ylim=(-0.03, 1.05), xlim=(0, 0.5), ylabel="gain")
        curves.set_title(kind, fontsize=10)
        curves.set_xticks((0, 0.1, 0.2, 0.3, 0.4))
        curves.set_xticks((0, 0.1, 0.2, 0.3, 0.4))
    right.axes[0].legend(title="cut-off", frameon=False, fontsize=8, title_fontsize=8)
    right.axes[-1].set_xlabel("frequency, cycles per pixel")
    save(figure, "low-pass.png")


def draw_patches() -> None:
    """Several draws of each kind of patch, the seeds chosen for variety."""
    figure, image = canvas(12, 5.3), photograph()
    rows: tuple[tuple[GaussianPatch | BlurPatch, str], ...] = (
        (GaussianPatch(0.5), "noise, sigma {:.2f}"),
        (BlurPatch(4.0), "blur, sigma {:.1f} px"),
    )
    for axes, (patch, label) in zip(figure.subplots(2, len(SEEDS)), rows, strict=True):
        for seed, panel in zip(SEEDS, axes, strict=True):
            placed = patch.draw(SIDE, SIDE, np.random.default_rng(seed))
            title = f"{label.format(placed.sigma)}, side {placed.side}"
            show(panel, patch.apply(image, np.random.default_rng(seed)), title)
    save(figure, "patches.png")


def small(image: Image.Image) -> Image.Image:
    """The crop as the first stage of FastDINOv2 sees it."""
    return image.resize((SMALL, SMALL), BICUBIC)


def spectrum(image: Image.Image) -> Any:
    """Power in rings around the origin of the spectrum of a windowed grey square; ring r has r cycles per side.

    Scaled so that the same picture with other pixels has the same spectrum, as far as they hold it.
    """
    grey, side = np.asarray(image.convert("F")), image.width
    window = np.hanning(side)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(window, window))) ** 2 / side**4
    frequency = np.fft.fftfreq(side)
    ring = np.rint(np.hypot(frequency[:, None], frequency) * side).astype(int).ravel()
    return (np.bincount(ring, power.ravel()) / np.bincount(ring))[: side // 2]


def squares() -> list[Image.Image]:
    """The largest central square of each photograph."""
    found = []
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(data, name)()).convert("RGB")
        side, (width, height) = min(image.size), image.size
        left, top = (width - side) // 2, (height - side) // 2
        found.append(image.crop((left, top, left + side, top + side)))
    return found


def measured_gains(makers: Mapping[str, Make]) -> dict[str, Any]:
    """Amplitude left in each ring, as far as the result has such: median over the photographs."""
    ratios: dict[str, list[Any]] = {name: [] for name in makers}
    for source in squares():
        full = source.resize((SIDE, SIDE), BICUBIC)
        before = spectrum(full)
        for name, make in makers.items():
            after = spectrum(make(full))
            ratios[name].append(np.sqrt(after / before[: len(after)]))
    return {name: np.median(found, axis=0) for name, found in ratios.items()}


def draw_low_resolution() -> None:
    """Details of a full crop, of the small one, and of filtered ones; beside them what is left at each frequency."""
    kinds: dict[str, Make] = {
        f"{SMALL}-px crop": small,
        f"{SMALL}-px crop, enlarged": lambda image: small(image).resize(image.size, BICUBIC),
        **{f"low_pass {kind} 0.25": partial(low_pass_image, cutoff_cycles_per_px=0.25, kind=kind) for kind in FILTERS},
    }
    gains, image = measured_gains(kinds), photograph()
    figure = canvas(12, 5.6)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 2.1))
    shown = [(f"{SIDE}-px crop", image), *((name, make(image)) for name, make in kinds.items())]
    for number, (title, picture) in enumerate(shown):
        panel = figure.add_subplot(grid[number // 3, number % 3])
        detail = [edge * picture.width // SIDE for edge in DETAIL]
        show(panel, picture.crop((detail[0], detail[1], detail[2], detail[3])), title)
    curves = figure.add_subplot(grid[:, 3])
    for number, (name, values) in enumerate(gains.items()):
        frequency = np.arange(len(values)) / SIDE
        style = {"color": INK, "linewidth": 2.6} if number < 2 else {"color": COLOURS[number - 2]}
        curves.plot(frequency[1:], values[1:], ("-", ":", "--", "-.", "-")[number], label=name, **style)
    curves.axvline(SMALL / SIDE / 2, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
    curves.set(xlim=(0, 0.5), ylim=(0, 1.2), xlabel=f"frequency, cycles per pixel of the {SIDE}-px crop")
    curves.set_title(f"amplitude left, median of {len(PHOTOGRAPHS)} photographs", fontsize=11)
    curves.legend(frameon=False, fontsize=9)
    save(figure, "low-resolution.png")
    report(gains)


def report(gains: Mapping[str, Any]) -> None:
    for name, values in gains.items():
        rings = {at: round(at * SIDE) for at in (0.05, 0.1, 0.15, 0.2, 0.24, 0.3, 0.4)}
        print(f"{name:26}", *(f"{at}: {values[ring]:.2f}" for at, ring in rings.items() if ring < len(values)))


def save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / name, dpi=DPI_FILE)


if __name__ == "__main__":
    with rc_context(STYLE):
        draw_low_pass()
        draw_patches()
        draw_low_resolution()
