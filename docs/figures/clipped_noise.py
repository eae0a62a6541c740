"""Draws docs/img/clipped-noise-curves.png and docs/img/clipped-noise.jpg: what clipping takes, and what comes back.

Usage: python docs/figures/clipped_noise.py KODAK gauss100=WEIGHTS gauss255=WEIGHTS. KODAK is a folder of clean images,
WEIGHTS a denoiser trained on such noise. Prints the mean PSNR over the images; the last noise is drawn. Needs
matplotlib (extra `report`) and scikit-image; about a minute per noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio

from dinov2_noise.decoding import load_rgb
from dinov2_noise.denoise.debias import Debias
from dinov2_noise.files import list_images
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.clipping import stored
from dinov2_noise.report.figures import COLOURS, FAINT, LINE_STYLES, STYLE
from neighbor2neighbor import denoise_image, load_checkpoint, to_uint8

FOLDER = Path(__file__).parent.parent / "img"
LEVELS = {"gauss": ("50", "100", "255"), "shot": ("10", "3", "1"), "speckle": ("0.4", "0.7", "1.0")}
SHOWN = "kodim23"
DETAIL = (90, 130, 410, 450)  # of the picture shown: top, left, bottom, right
Pixels = NDArray[np.uint8]


def draw_curves() -> None:
    """One panel per family: the mean of what is stored, over the truth."""
    figure = canvas(12, 4.2)
    truth = np.linspace(0, 1, 401)
    for (family, levels), axes in zip(LEVELS.items(), figure.subplots(1, 3, sharey=True), strict=True):
        axes.plot(truth, truth, color=FAINT, linewidth=1, label="no noise")
        for number, level in enumerate(levels):
            mean = stored(parse(family + level), truth).mean
            axes.plot(truth, mean, LINE_STYLES[number], color=COLOURS[number], label=family + level)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="true value (0 black, 1 white)", aspect="equal")
        axes.legend(frameon=False, loc="upper left")
    figure.axes[0].set_ylabel("mean of the stored noisy value")
    figure.savefig(FOLDER / "clipped-noise-curves.png")


def versions(clean: Pixels, name: str, noise: str, model: torch.nn.Module) -> dict[str, Pixels]:
    """All that is compared, by what it is called."""
    noisy = noisy_uint8(clean, parse(noise), relative_path=name)
    debias = Debias(parse(noise))
    denoised = denoise_image(model, as_tensor(noisy))
    mean = np.rint(255 * stored(parse(noise), np.arange(256) / 255).mean).astype(np.uint8)[clean]
    return {
        "noisy": noisy,
        "denoised": as_pixels(denoised),
        "with --debias": as_pixels(debias(denoised)),
        "perfect denoiser": mean,
        "perfect, with --debias": as_pixels(debias(as_tensor(mean))),
    }


def measure(kodak: Path, noise: str, weights: Path) -> tuple[Pixels, dict[str, Pixels]]:
    """Print mean PSNRs; the picture to draw and its versions."""
    model, shown = load_checkpoint(weights), None
    scores: dict[str, list[float]] = {}
    for name in list_images(kodak):
        clean = np.asarray(load_rgb(kodak / name))
        made = versions(clean, name, noise, model)
        for kind, image in made.items():
            scores.setdefault(kind, []).append(peak_signal_noise_ratio(clean, image))
        if SHOWN in name:
            shown = clean, made
    gains = np.subtract(scores["with --debias"], scores["denoised"])
    row = ", ".join(f"{kind} {np.mean(values):.2f} dB" for kind, values in scores.items())
    print(f"{noise}: {row}; --debias gains {gains.min():+.2f} to {gains.max():+.2f} dB on {len(gains)} images")
    assert shown is not None, f"no image called {SHOWN}"
    return shown


def draw_pictures(clean: Pixels, made: dict[str, Pixels], noise: str) -> None:
    top, left, bottom, right = DETAIL
    panels = {"clean": clean} | {kind: made[kind] for kind in ("noisy", "denoised", "with --debias")}
    figure = canvas(12, 3.2)
    for axes, (kind, image) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        score = "" if kind == "clean" else f": {peak_signal_noise_ratio(clean, image):.1f} dB"
        axes.imshow(image[top:bottom, left:right], interpolation="nearest")
        axes.set_title(f"{noise if kind == 'noisy' else kind}{score}", fontsize=11)
        axes.axis("off")
    figure.savefig(FOLDER / "clipped-noise.jpg", pil_kwargs={"quality": 88})


def canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_tensor(image: Pixels) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def as_pixels(image: torch.Tensor) -> Pixels:
    return to_uint8(image).permute(1, 2, 0).numpy()


def main() -> None:
    kodak, pairs = Path(sys.argv[1]), [argument.split("=", 1) for argument in sys.argv[2:]]
    draw_curves()
    for noise, weights in pairs:
        clean, made = measure(kodak, noise, Path(weights))
    if pairs:
        draw_pictures(clean, made, noise)


if __name__ == "__main__":
    with rc_context(STYLE):
        main()
