"""Decoding: Pillow's pixels for good files, an error that names the file for bad ones."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.decoding import decode_pixels, image_size, load_pixels, load_rgb, parse_range
from dinov2_noise.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".png", mode) for mode in ("RGB", "L", "RGBA", "P", "1", "LA")]
    + [(".JPEG", mode) for mode in ("RGB", "L", "CMYK")]
    + [(".webp", mode) for mode in ("RGB", "RGBA")]
    + [(".tif", mode) for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK", "LA")]
    + [(".bmp", mode) for mode in ("RGB", "L", "P", "1")],
)
def test_pixels_equal_pillows_conversion(tmp_path, suffix, mode):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(PIXELS).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    made = load_rgb(path)
    assert made.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(made), expected)
    assert image_size(path) == (40, 24)


def test_gray_becomes_three_equal_channels(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(np.asarray(load_rgb(tmp_path / "gray.png")), PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.JPEG", "a.tif"])
def test_8_bit_pixels_are_the_same_three_ways(tmp_path, name):
    Image.fromarray(PIXELS).save(tmp_path / name)
    made = load_pixels(tmp_path / name)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, np.asarray(load_rgb(tmp_path / name)))
    np.testing.assert_array_equal(decode_pixels((tmp_path / name).read_bytes(), Path(name)), made)
    halved = load_pixels(tmp_path / name, parse_range("fixed:0,510"))
    np.testing.assert_allclose(halved, made / 510, rtol=0, atol=1e-15)


def test_deep_pictures_of_other_formats_are_refused_instead_of_turned_white(tmp_path):
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) << 8).save(tmp_path / "deep.pgm")
    (tmp_path / "deep.pgm").rename(tmp_path / "deep.png")
    with pytest.raises(ImageError, match=r"deep\.png.*more than 8 bits .* not of PPM: write it as one of those"):
        load_rgb(tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_file_is_an_error_that_names_it(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError) as caught:
        load_rgb(path)
    assert str(path) in str(caught.value)


def test_no_truncation_of_a_png_goes_unnoticed(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(PIXELS).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 16, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cut\.png"):
            load_rgb(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"not an image at all", "not an image"), (None, "does not exist")],
)
def test_what_is_no_image_is_named(tmp_path, content, message):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        load_rgb(path)
    assert str(path) in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        image_size(path)


def test_what_pillow_holds_too_large_is_to_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"a\.png.*cut it into tiles"):
        load_rgb(tmp_path / "a.png")
