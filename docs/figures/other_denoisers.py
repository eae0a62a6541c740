"""PSNR of denoisers of deepinv on noisy photographs, by `denoise apply --model`; draws docs/img/other-denoisers.jpg.

Needs `pip install 'dinov2-noise[deepinv]'`. PSNR is the mean over images, of 256x256 px from the middle of each.
Usage: OMP_NUM_THREADS=2 python docs/figures/other_denoisers.py KODAK (a folder of clean photographs)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.files import list_images
from dinov2_noise.noise import add_noise
from dinov2_noise.report.figures import INK, STYLE

OUTPUT = Path(__file__).parent.parent / "img" / "other-denoisers.jpg"
SIDE_PX, EVERY = 256, 3
LEVELS = (25, 50, 100)
DRAWN_LEVEL, DRAWN = 50, (0, 4, 7)


def denoisers(sigma_255: float) -> dict[str, tuple[str, dict[str, Any]]]:
    """Factory and options, for each row of the table."""
    return {
        "median": ("median", {"side": 5 if sigma_255 < 100 else 7}),
        "total variation": ("tv", {"sigma": round(sigma_255 / 255, 3)}),
    }


def crops(source: Path, folder: Path) -> None:
    folder.mkdir()
    for name in list_images(source)[::EVERY]:
        image = Image.open(source / name).convert("RGB")
        left, top = (image.width - SIDE_PX) // 2, (image.height - SIDE_PX) // 2
        image.crop((left, top, left + SIDE_PX, top + SIDE_PX)).save(folder / f"{Path(name).stem}.png")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64)


def psnr_db(folder: Path, clean: Path) -> float:
    errors = [np.mean((pixels(folder / name) - pixels(clean / name)) ** 2) for name in list_images(clean)]
    return float(np.mean(10 * np.log10(255**2 / np.array(errors))))


def draw(root: Path, columns: list[str]) -> None:
    names = [list_images(root / "clean")[number] for number in DRAWN]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(names), len(columns), figsize=(2.3 * len(columns), 2.3 * len(names)))
        for row, name in zip(axes, names, strict=True):
            for cell, column in zip(row, columns, strict=True):
                folder = root / ("clean" if column == "clean" else f"{column} {DRAWN_LEVEL}")
                cell.imshow(Image.open(folder / name).crop((48, 48, 208, 208)), interpolation="nearest")
                cell.set_axis_off()
        for cell, column in zip(axes[0], columns, strict=True):
            cell.set_title(f"noisy (gauss{DRAWN_LEVEL})" if column == "noisy" else column, color=INK, fontsize=11)
        figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.94, wspace=0.02, hspace=0.02)
        figure.savefig(OUTPUT, dpi=100, pil_kwargs={"quality": 85})
    print(OUTPUT)


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        crops(source, root / "clean")
        for level in LEVELS:
            noisy = root / f"noisy {level}"
            add_noise(root / "clean", noisy, noise=f"gauss{level}", progress=False)
            print(f"gauss{level}: noisy {psnr_db(noisy, root / 'clean'):.2f} dB", end="")
            for label, (factory, options) in denoisers(level).items():
                spec, output = f"dinov2_noise.denoise.deepinv_models:{factory}", root / f"{label} {level}"
                apply_denoiser(noisy, output, model_factory=spec, model_options=options, device="cpu", progress=False)
                print(f", {label} {psnr_db(output, root / 'clean'):.2f} dB", end="", flush=True)
            print()
        draw(root, ["clean", "noisy", *denoisers(DRAWN_LEVEL)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
