"""Draws docs/img/correlated-noise.jpg: noise that is correlated over a pixel, denoised with stride 1 and with stride 2.

Usage: python docs/figures/correlated_noise.py. Needs scikit-image's photographs (extra `demo`); trains six small
networks, about ten minutes on one core. Prints the PSNR of each on a photograph that none has seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from dinov2_noise.noise.audit import correlation
from dinov2_noise.report.figures import STYLE
from neighbor2neighbor import Trainer, TrainingConfig, denoise_image, to_uint8

FOLDER = Path(__file__).parent.parent / "img"
SIGMA_255 = 50.0
RADII_PX = (0.0, 0.7, 1.0)  # of the Gaussian blur of the noise alone; the first is white noise
SHOWN_PX = 0.7
STEPS = 600
DETAIL = (60, 110, 220, 270)  # of the photograph: top, left, bottom, right
Pixels = NDArray[np.uint8]


def noisy(clean: Pixels, radius_px: float, seed: int) -> Pixels:
    """Noise of a fixed level, blurred before it is added."""
    noise = np.random.default_rng(seed).normal(size=clean.shape)
    noise = gaussian_filter(noise, (radius_px, radius_px, 0))
    return np.clip(clean + noise * (SIGMA_255 / noise.std()), 0, 255).astype(np.uint8)


def as_tensor(image: Pixels) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def denoised(photographs: list[Pixels], seen: Pixels, stride: int) -> Pixels:
    """``seen``, denoised by a network trained on the noisy photographs; each stride sees as many pixels."""
    config = TrainingConfig(
        steps=STEPS,
        batch_size=8 // stride**2,
        crop_px=64 * stride,
        learning_rate=1e-3,
        n_feature=16,
        residual=True,
        stride=stride,
    )
    trainer = Trainer([as_tensor(image) for image in photographs], config, device="cpu")
    for _ in trainer.steps():
        pass
    output = denoise_image(trainer.denoiser(), as_tensor(seen).float() / 255)
    return to_uint8(output).permute(1, 2, 0).numpy()


def main() -> None:
    training = [data.astronaut(), data.coffee(), data.rocket()]
    clean = data.chelsea()
    panels = [("clean", clean)]
    for radius_px in RADII_PX:
        photographs = [noisy(image, radius_px, seed) for seed, image in enumerate(training)]
        seen = noisy(clean, radius_px, len(training))
        found = correlation([as_tensor(image) for image in photographs])
        results = {"noisy": seen} | {f"--stride {s}": denoised(photographs, seen, s) for s in (1, 2)}
        scores = {name: peak_signal_noise_ratio(clean, image) for name, image in results.items()}
        row = ", ".join(f"{name} {score:.2f} dB" for name, score in scores.items())
        print(f"blur {radius_px} px, autocorrelation {found.autocorrelation[0, 1]:.2f}: {row}", flush=True)
        if radius_px == SHOWN_PX:
            panels += [(f"{name}: {scores[name]:.1f} dB", image) for name, image in results.items()]
    draw(panels)


def draw(panels: list[tuple[str, Pixels]]) -> None:
    top, left, bottom, right = DETAIL
    figure = Figure(figsize=(12, 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, image) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(image[top:bottom, left:right], interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    figure.savefig(FOLDER / "correlated-noise.jpg", pil_kwargs={"quality": 88})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with rc_context(STYLE):
        main()
