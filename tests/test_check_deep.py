"""The command `check` on images of more than 8 bits: which values they use, and the range they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from checked import looked, text_of
from PIL import Image

from dinov2_noise.check import record
from dinov2_noise.check.tally import Depth
from dinov2_noise.check.verdict import range_advice
from dinov2_noise.decoding import DTYPE_RANGE, parse_range


def deep(folder: Path, pixels: Any, name: str = "a.npy") -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / name, pixels)
    return folder


def test_deep_images_and_the_range_they_need(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 80 * 80).reshape(80, 80)
    folder = deep(tmp_path / "twelve", ramp.astype(np.uint16))
    lines = text_of(looked(folder))
    assert lines["values"].splitlines()[0] == "16 bit: from 0 to 4095; read with range dtype"
    assert (
        "only 12 of 16 bits are used, so that images are 16 times too dark: try `--range fixed:0,4095`"
        in lines["values"]
    )
    chosen = looked(folder, values=parse_range("fixed:0,4095"))
    assert text_of(chosen)["values"] == "16 bit: from 0 to 4095; read with range fixed:0,4095"
    assert " --range fixed:0,4095" in text_of(chosen)["next"] or not chosen.noise or not chosen.noise.is_clear

    negative = deep(tmp_path / "float", (ramp - 100).astype(np.float32))
    found = looked(negative)
    assert not found.good
    lines = text_of(found)
    assert lines["unusable"].startswith("1: 1 do not fit the range of values")
    assert "try `--range percentile:0.5,99.5`" in lines["mend"]
    assert looked(negative, values=parse_range("percentile:0.5,99.5")).good


def test_numbers_without_black_and_white_need_a_range_not_repair(tmp_path: Path) -> None:
    ramp = np.linspace(0, 2_000_000, 80 * 80).reshape(80, 80)
    folder = deep(tmp_path / "wide", ramp.astype(np.uint32))
    found = looked(folder)
    lines = text_of(found)
    assert lines["unusable"].startswith("1: 1 do not fit the range of values")
    assert len(record(found)["mend"]) == 1
    assert "type has no black and white of its own" in lines["mend"]
    assert lines["next"] == f"dinov2-noise check {folder} --range percentile:0.5,99.5"


def frames(folder: Path, count: int = 3) -> Path:
    """16-bit pictures of a dark sky: a narrow band of values with noise, and some stars far above it."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        sky = 1000 + rng.normal(scale=40, size=(96, 80))
        sky[::48, ::40] = 20_000
        Image.fromarray(np.clip(sky, 0, 65535).astype(np.uint16)).save(folder / f"{number}.png")
    return folder


def test_a_narrow_band_of_values_is_to_be_stretched_first(tmp_path: Path) -> None:
    folder = frames(tmp_path / "sky")
    found = looked(folder)
    lines = text_of(found)
    assert "less than one grey level of 256: try `--range asinh`" in lines["mind"]
    assert "is lost where images are rounded to 8 bits" in lines["mind"]
    # No denoiser before that, and nothing made up about noise that has one intensity.
    assert lines["next"] == f"dinov2-noise check {folder} --range asinh:0.1,0.5,99.9"
    assert lines["kind of noise"] == "not judged: nearly all of the picture has one intensity"
    assert found.noise is not None
    assert (found.noise.kind, found.noise.bias, found.noise.snr_db) == (None, None, None)
    assert lines["saturated"] == "black 0 %, white 0 %"
    assert lines["sizes"].startswith("all 80x96 px;")
    stretched = text_of(looked(folder, values=parse_range("asinh")))
    assert stretched["next"] == f"dinov2-noise denoise train {folder} DENOISER --range asinh:0.1,0.5,99.9"
    assert stretched["kind of noise"].startswith("not judged: range asinh:0.1,0.5,99.9 stretches")


def test_deep_images_with_the_same_pixels_are_found_in_other_formats(tmp_path: Path) -> None:
    folder = frames(tmp_path / "sky", count=2)
    np.save(folder / "copy.npy", np.asarray(Image.open(folder / "1.png")).astype(np.uint16))
    assert text_of(looked(folder))["duplicates"].splitlines()[1:] == ["  1.png = copy.npy"]


def test_ranges_of_types_that_have_ends_of_their_own() -> None:
    # A CT: 12 bits stored, in Hounsfield units, through most of its range.
    scan = Depth(images=9, low=-1024, high=1500, spread=1900, contrast=2, ends=(-1024, 3071), has_window=True)
    assert range_advice("float 64 bit", scan, DTYPE_RANGE) is None
    narrow = range_advice("float 64 bit", scan._replace(spread=200), DTYPE_RANGE)
    assert narrow is not None
    assert narrow.best == parse_range("window")
    assert range_advice("float 64 bit", scan._replace(spread=200), parse_range("window")) is None


def test_stars_and_missing_pixels(tmp_path: Path) -> None:
    sky = np.random.default_rng(0).uniform(0.001, 0.0011, (80, 80)).astype(np.float32)
    sky[::20, ::20] = 1
    sky[:20] = np.nan
    sky[0, 0] = 0.001
    values = text_of(looked(deep(tmp_path / "sky", sky)))["values"]
    assert "no data (NaN) in 1 image, up to 25 % of one: black" in values
    assert "try `--range asinh`" in values
