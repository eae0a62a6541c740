"""The factories around deepinv, in the real pipeline; skipped where deepinv is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.denoise.models import load_denoiser
from dinov2_noise.errors import ConfigError

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
MODULE = "dinov2_noise.denoise.deepinv_models"

needs_deepinv = pytest.mark.skipif(find_spec("deepinv") is None, reason="deepinv is not installed")


@needs_deepinv
def test_denoisers_of_deepinv(tmp_path: Path) -> None:
    clean = np.zeros((60, 90, 3)) + np.linspace(40, 200, 90)[:, None]
    (tmp_path / "noisy").mkdir()
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape)
    for name in "ab":
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "noisy" / f"{name}.png")
    gains_db = {"median": ({"side": 5}, 8), "tv": ({"sigma": 25 / 255}, 10), "drunet": ({"sigma": 0.1}, -100)}
    for factory, (options, gain_db) in gains_db.items():
        spec = f"{MODULE}:{factory}"
        apply_denoiser(tmp_path / "noisy", tmp_path / factory, model_factory=spec, model_options=options, **QUIET)
        first, second = ((tmp_path / factory / f"{name}.png").read_bytes() for name in "ab")
        assert first == second  # nothing is remembered from one image to the next
        error = np.asarray(Image.open(tmp_path / factory / "a.png")) - clean
        assert 10 * np.log10(25**2 / np.mean(error**2)) > gain_db, factory


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="must be a file on this machine: download the weights once"):
        load_denoiser(None, None, f"{MODULE}:drunet", {"sigma": 0.1, "pretrained": "download"})
    if find_spec("deepinv") is None:
        with pytest.raises(ConfigError, match=r"deepinv is not installed: pip install 'dinov2-noise\[deepinv\]'"):
            load_denoiser(None, None, f"{MODULE}:median")
