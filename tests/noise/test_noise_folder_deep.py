"""add-noise on images of more than 8 bits."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import OutputFolderError
from dinov2_noise.noise import add_noise


def test_deep_images_get_their_noise_at_full_depth(tmp_path):
    """A 12-bit ramp in a 16-bit file: the range says what is white; nothing is rounded to 8 bits before the noise."""
    ramp = np.linspace(0, 4095, 60 * 80).astype(np.uint16).reshape(60, 80)
    (tmp_path / "deep").mkdir()
    Image.fromarray(ramp).save(tmp_path / "deep" / "ramp.png")
    add_noise(
        tmp_path / "deep",
        tmp_path / "out",
        noise="gauss25",
        values=parse_range("fixed:0,4095"),
        workers=1,
        progress=False,
    )
    clean = np.repeat(ramp[:, :, None] / 4095, 3, axis=2)
    seed = int(hashlib.md5(b"ramp.png_42").hexdigest(), 16) % 2**32
    noisy = np.clip(clean + np.random.default_rng(seed).normal(size=clean.shape, scale=25 / 255), 0, 1)
    with Image.open(tmp_path / "out" / "ramp.png") as made:
        np.testing.assert_array_equal(np.asarray(made), (noisy * 255).astype(np.uint8))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["parameters"]["range"] == "fixed:0,4095"
    with pytest.raises(OutputFolderError, match="range: there 'fixed:0,4095', now None"):
        add_noise(tmp_path / "deep", tmp_path / "out", noise="gauss25", workers=1, progress=False)
