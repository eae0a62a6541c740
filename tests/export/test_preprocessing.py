"""What the backbone is given is what upstream's evaluations give it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tiny_run import picture

from dinov2_noise.decoding import load_pixels, parse_range
from dinov2_noise.errors import ConfigError, ImageError
from dinov2_noise.export.preprocessing import MEAN, STD, Preprocessing

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, size=(70, 60), dtype=np.uint16)
RANGE = parse_range("fixed:0,4095")


@pytest.mark.upstream
@pytest.mark.parametrize("size", [(500, 375), (224, 224), (64, 300), (257, 256)])
def test_it_is_upstreams_transform_to_the_bit(size: tuple[int, int]) -> None:
    from dinov2.data.transforms import make_classification_eval_transform

    image, theirs = picture(size), make_classification_eval_transform()
    assert torch.equal(Preprocessing()(image), theirs(image))
    assert torch.equal(Preprocessing()(np.asarray(image)), theirs(image))
    floats = np.asarray(image) / np.float32(255)
    assert torch.equal(Preprocessing()(floats), theirs(image))  # as many bits as the run had
    deep = theirs(torch.from_numpy(floats.transpose(2, 0, 1)))
    assert torch.equal(Preprocessing(full_depth=True)(floats), deep)


def test_gray_becomes_three_equal_channels() -> None:
    gray = np.asarray(picture((90, 80)).convert("L"))
    three = Preprocessing(64)(gray) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(three[0], three[2], rtol=0, atol=1e-6)
    assert torch.equal(Preprocessing(64)(gray), Preprocessing(64)(Image.fromarray(gray)))
    assert torch.equal(Preprocessing(64)(gray), Preprocessing(64)(gray[..., None]))


@pytest.mark.parametrize("full_depth", [False, True])
def test_arrays_of_many_bits_are_what_their_files_are(full_depth: bool, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", DEEP)
    from_file = Preprocessing(56, full_depth=full_depth)(load_pixels(tmp_path / "deep.tif", RANGE))
    assert torch.equal(Preprocessing(56, RANGE, full_depth)(DEEP), from_file)
    assert torch.equal(Preprocessing(56, RANGE, full_depth)(Image.fromarray(DEEP)), from_file)  # mode I;16
    assert from_file.std() > 0.3
    levels = (from_file[0] * STD[0] + MEAN[0]) * 255
    rounding = (levels - levels.round()).abs().max()
    assert (rounding < 1e-3) == (not full_depth)


def test_the_range_decides_how_bright_it_is() -> None:
    half = np.full((64, 64), 2048, np.uint16)
    bright = Preprocessing(56, parse_range("fixed:0,4096"), full_depth=True)(half)[0, 0, 0] * STD[0] + MEAN[0]
    dark = Preprocessing(56, full_depth=True)(half)[0, 0, 0] * STD[0] + MEAN[0]
    assert bright == pytest.approx(0.5, abs=1e-6)
    assert dark == pytest.approx(2048 / 65535, abs=1e-6)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((5, 5, 2), np.uint8), r"\(5, 5, 2\)"),
        (np.zeros((0, 5)), r"\(0, 5\)"),
        (np.full((5, 5), 7.0), "beyond"),
        (np.full((5, 5), "a"), "not numbers"),
        (np.full((5, 5), np.nan), "all are NaN"),
    ],
    ids=["channels", "empty", "floats beyond 1", "text", "no data"],
)
def test_what_makes_no_image_is_refused(array: np.ndarray, complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        Preprocessing()(array)


def test_as_json_and_back() -> None:
    used = Preprocessing(112, parse_range("asinh:0.1,1,99"), full_depth=True)
    assert Preprocessing.of(used.plain()) == used
    assert used.plain()["resize_px"] == 128
    with pytest.raises(ConfigError, match="at least 1"):
        Preprocessing(0)
