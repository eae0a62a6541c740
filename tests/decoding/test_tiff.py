"""TIFF of every depth and layout, against files of tifffile's writer."""

import sys

import numpy as np
import pytest
import tifffile
from helpers import run_python
from PIL import Image

from dinov2_noise.decoding import image_size, load_pixels, load_rgb, parse_range
from dinov2_noise.errors import ImageError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (24, 40, 4), dtype=np.uint16)
GRAY, RGB = DEEP[..., 0], DEEP[..., :3]


def _written(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    ("options", "array", "expected"),
    [
        ({}, GRAY, GRAY),
        ({"byteorder": ">"}, GRAY, GRAY),
        ({"bigtiff": True}, GRAY, GRAY),
        ({"photometric": "miniswhite"}, GRAY, 65535 - GRAY),
        ({"photometric": "miniswhite", "byteorder": ">"}, GRAY, 65535 - GRAY),
        ({"photometric": "rgb"}, RGB, RGB),
        ({"photometric": "rgb", "planarconfig": "separate"}, np.moveaxis(RGB, 2, 0), RGB),
        ({"photometric": "rgb", "extrasamples": ["unassalpha"]}, DEEP, RGB),
        ({"photometric": "rgb", "rowsperstrip": 5, "predictor": True, "compression": "zlib"}, RGB, RGB),
        ({"photometric": "rgb", "tile": (16, 16), "compression": "lzw"}, RGB, RGB),
        ({"photometric": "rgb", "compression": "zstd", "byteorder": ">"}, RGB, RGB),
        ({"photometric": "minisblack", "extrasamples": ["assocalpha"]}, DEEP[..., :2], GRAY),
    ],
    ids=lambda value: "-".join(map(str, value.values())) or "plain" if isinstance(value, dict) else "",
)
def test_16_bits_in_every_layout(tmp_path, options, array, expected):
    path = _written(tmp_path / "a.tif", array, **options)
    expected = np.repeat(expected[..., None], 3, axis=2) if expected.ndim == 2 else expected
    np.testing.assert_allclose(load_pixels(path), expected / 65535, rtol=0, atol=2e-16)
    assert image_size(path) == (40, 24)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_floats(tmp_path, dtype, channels, byteorder):
    array = RNG.random((12, 20, channels)).astype(dtype)
    kind = "rgb" if channels == 3 else "minisblack"
    path = _written(tmp_path / "a.tiff", array.squeeze(), photometric=kind, byteorder=byteorder)
    np.testing.assert_array_equal(load_pixels(path), np.broadcast_to(array.astype(float), (12, 20, 3)))
    assert image_size(path) == (20, 12)


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int32])
def test_other_integers_by_a_range(tmp_path, dtype):
    array = RNG.integers(0, 30000, (12, 20)).astype(dtype)
    path = _written(tmp_path / "a.tif", array)
    np.testing.assert_array_equal(load_pixels(path, parse_range("fixed:0,30000"))[..., 1], array / 30000)
    with pytest.raises(ImageError, match=r"a type without a black and a white: choose --range"):
        load_pixels(path)


def test_12_bits_stored_as_such_are_white_at_4095(tmp_path):
    array = RNG.integers(0, 4096, (12, 20), dtype=np.uint16)
    array[0, 0] = 4095
    packed = np.packbits(np.unpackbits(array.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]).tobytes()
    layout = {"shape": (12, 20), "dtype": np.uint16, "bitspersample": 12, "rowsperstrip": 12}
    path = _written(tmp_path / "a.tif", iter([packed]), **layout)
    np.testing.assert_array_equal(load_pixels(path)[..., 2], array / 4095)


def test_of_several_pages_the_first_is_taken(tmp_path):
    stack = RNG.integers(0, 65536, (5, 24, 40), dtype=np.uint16)
    for options in ({"photometric": "minisblack"}, {"imagej": True}):
        path = _written(tmp_path / "a.tif", stack, **options)
        np.testing.assert_array_equal(load_pixels(path)[..., 0], stack[0] / 65535)


def test_gdals_no_data_value_is_black_and_no_part_of_percentiles(tmp_path):
    array = RNG.uniform(100, 200, (12, 20)).astype(np.float32)
    array[3:5, :9] = -9999
    path = _written(tmp_path / "a.tif", array, extratags=[(42113, "s", 0, "-9999", True)])
    made = load_pixels(path, parse_range("percentile:0,100"))[..., 0]
    valid = array != -9999
    low, high = float(array[valid].min()), float(array[valid].max())
    np.testing.assert_allclose(made[valid], (array[valid] - low) / (high - low), rtol=0, atol=1e-6)
    assert not made[~valid].any()


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (
            {"photometric": "minisblack", "planarconfig": "contig"},
            (24, 40, 5),
            "5 channels of which 1 are called MINISBL",
        ),
        ({"photometric": "rgb", "planarconfig": "contig"}, (24, 40, 6), "6 channels of which 3 are called RGB"),
        ({"photometric": "separated"}, (24, 40, 4), "a TIFF of kind SEPARATED"),
    ],
    ids=["spectral", "rgb-and-more", "cmyk"],
)
def test_channels_of_unknown_meaning_are_refused(tmp_path, options, shape, message):
    path = _written(tmp_path / "a.tif", np.zeros(shape, np.uint16), **options)
    with pytest.raises(ImageError, match=rf"a\.tif: .*{message}"):
        load_pixels(path)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_every_cut_of_a_deep_file_is_an_error(tmp_path, compression):
    whole = _written(tmp_path / "a.tif", RGB, photometric="rgb", compression=compression, rowsperstrip=7).read_bytes()
    for length in range(0, len(whole) - 600, 487):
        (tmp_path / "cut.tif").write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cut\.tif"):
            load_pixels(tmp_path / "cut.tif")


def test_one_pixel_and_one_row(tmp_path):
    for shape in ((1, 1), (1, 30), (30, 1)):
        array = RNG.integers(0, 65536, shape, dtype=np.uint16)
        path = _written(tmp_path / "a.tif", array)
        np.testing.assert_array_equal(load_pixels(path)[..., 0], array / 65535)
        assert image_size(path) == shape[::-1]


def test_8_bits_are_read_by_pillow_whatever_tifffile_would_make_of_them(tmp_path):
    path = _written(tmp_path / "a.tif", (RGB >> 8).astype(np.uint8), photometric="rgb", compression="lzw")
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(load_rgb(path)), np.asarray(image))
    assert load_pixels(path).dtype == np.uint8


def test_a_missing_library_for_a_compression_is_named(tmp_path):
    path = _written(tmp_path / "a.tif", RGB, photometric="rgb", compression="lzw")
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from pathlib import Path\nfrom dinov2_noise.decoding import load_pixels\n"
        "load_pixels(Path(sys.argv[1]))"
    )
    done = run_python("-c", code, str(path))
    last = done.stderr.strip().splitlines()[-1]
    assert str(path) in last
    assert last.endswith("pip install 'dinov2-noise[tiff]'")
    assert sys.executable not in last
