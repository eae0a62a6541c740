"""What the denoiser is for: it brings unseen noisy photographs closer to the clean ones, having seen none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dinov2_noise.denoise import apply_denoiser


def psnr_db(path: Path, clean: Path) -> float:
    difference = np.asarray(Image.open(path), dtype=np.float64) - np.asarray(Image.open(clean), dtype=np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def test_unseen_photograph_gains_at_least_5_db(trained: Any, tmp_path: Path) -> None:
    apply_denoiser(trained.noisy / "val", tmp_path / "denoised", weights=trained.weights, device="cpu", progress=False)
    clean = trained.clean / "val" / "chelsea.png"
    before = psnr_db(trained.noisy / "val" / "chelsea.png", clean)
    after = psnr_db(tmp_path / "denoised" / "chelsea.png", clean)
    assert 14 < before < 15.5  # 20 log10(255 / 50) = 14.2, a little more after clipping
    assert after > before + 5, f"{before:.2f} dB noisy, {after:.2f} dB denoised"
