"""Draw docs/img/toy-mnist.png and toy-digits.png from the folder of a toy experiment.

Usage: python docs/figures/toy.py toy-mnist
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dinov2_noise.report.figures import contact_sheet
from dinov2_noise.toy.arms import Settings
from dinov2_noise.toy.digits import DigitSet
from dinov2_noise.toy.jobs import DENOISED_FILE, DIGITS_FILE, seen_and_tested
from dinov2_noise.toy.plot import draw
from dinov2_noise.toy.seeding import Stream, generator
from dinov2_noise.toy.views import apply_views, draw_views

IMAGES = Path(__file__).parent.parent / "img"


def digits(folder: Path, settings: Settings) -> bytes:
    """One digit of each class: what each arm sees, before and after the views."""
    found = DigitSet.load(folder / DIGITS_FILE)
    chosen = torch.tensor([int(np.flatnonzero(found.train_labels == label)[0]) for label in range(10)])
    seen, _ = seen_and_tested(folder, found, replace(settings, noise_draws="fixed"))
    clean, noisy, denoised = (seen[name][0][chosen] for name in ("clean", "noisy", "denoised"))
    views = draw_views(len(chosen), clean.shape[-1], generator(0, Stream.VIEWS))
    rows = {
        "clean": clean,
        "noisy": noisy,
        "denoised": denoised,
        "view, clean": apply_views(clean, views),
        "view, noisy": apply_views(noisy, views),
        "view, denoised": apply_views(denoised, views),
    }
    pictures = [[Image.fromarray((image * 255).byte().numpy()) for image in images] for images in rows.values()]
    return contact_sheet([str(label) for label in range(10)], pictures, list(rows))


if __name__ == "__main__":
    experiment = Path(sys.argv[1])
    summary = json.loads((experiment / "summary.json").read_text())
    used = {name: value for name, value in summary["settings"].items() if name != "seeds"}
    assert (experiment / DENOISED_FILE).is_file()
    (IMAGES / "toy-mnist.png").write_bytes(draw(summary))
    (IMAGES / "toy-digits.png").write_bytes(digits(experiment, Settings(**used)))
