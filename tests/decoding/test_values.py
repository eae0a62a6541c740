"""Ranges: what becomes black and white, to the last digit, and what they are called."""

import pickle

import numpy as np
import pytest

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, load_pixels, load_rgb, parse_range, to_uint8
from dinov2_noise.errors import ConfigError, ImageError

RNG = np.random.default_rng(0)


def _load(folder, array, name="dtype"):
    np.save(folder / "a.npy", array)
    return load_pixels(folder / "a.npy", parse_range(name))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dtype", "dtype"),
        ("fixed:0,4095", "fixed:0,4095"),
        ("fixed,-1000,400.5", "fixed:-1000,400.5"),
        ("fixed:1e-3,2e20", "fixed:0.001,2e+20"),
        ("percentile:0.5,99.5", "percentile:0.5,99.5"),
        ("asinh", "asinh:0.1,0.5,99.9"),
        ("asinh:0.02", "asinh:0.02,0.5,99.9"),
        ("asinh,0.02,1,99", "asinh:0.02,1,99"),
        ("window", "window"),
    ],
)
def test_names_and_ranges_belong_together(text, name):
    values = parse_range(text)
    assert values.name == name
    assert parse_range(values.name) == parse_range(values.token) == pickle.loads(pickle.dumps(values)) == values
    assert ":" not in values.token


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown range '': valid are dtype, fixed:A,B"),
        ("dtype:1", "valid are"),
        ("linear", "valid are"),
        ("fixed:1", "valid are"),
        ("fixed:0,x", "valid are"),
        ("fixed:0,1,2", "valid are"),
        ("asinh:0.1,5", "valid are"),
        ("fixed:1,1", "range fixed:1,1: the first number, black, must be less than the second"),
        ("fixed:2,1", "must be less"),
        ("fixed:0,inf", "not finite"),
        ("percentile:-1,99", "0 <= P < Q <= 100"),
        ("percentile:99,1", "0 <= P < Q <= 100"),
        ("percentile:1,100.5", "0 <= P < Q <= 100"),
        ("asinh:0", "softening must be greater than 0"),
        ("asinh:0.1,99,1", "0 <= P < Q <= 100"),
    ],
)
def test_what_is_no_range_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_range(text)


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (">u2", 65535), (np.float32, 1), (">f8", 1), (bool, 1)]
)
def test_dtype_maps_the_whole_type(tmp_path, dtype, white):
    truth = np.array([[0, white // 2, white]], dtype=np.int64)
    made = _load(tmp_path, truth.astype(dtype))
    expected = np.repeat(truth[..., None], 3, axis=2) / white
    np.testing.assert_array_equal(made / 255 if made.dtype == np.uint8 else made, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int64])
def test_integers_without_a_natural_white_need_a_range(tmp_path, dtype):
    with pytest.raises(ImageError, match=r"a\.npy: its numbers are .*int.*choose --range fixed:A,B, .*asinh"):
        _load(tmp_path, np.arange(12, dtype=dtype).reshape(3, 4))
    made = _load(tmp_path, np.arange(12, dtype=dtype).reshape(3, 4), "fixed:0,11")
    np.testing.assert_array_equal(made[..., 0], np.arange(12).reshape(3, 4) / 11)


@pytest.mark.parametrize("worst", [1.5, -0.25, np.inf])
def test_floats_beyond_black_and_white_need_a_range(tmp_path, worst):
    array = np.full((2, 3), 0.5, np.float32)
    array[1, 2] = worst
    with pytest.raises(ImageError, match=r"its floats reach from .* beyond \[0, 1\]: choose --range"):
        _load(tmp_path, array)
    assert _load(tmp_path, array, "fixed:0,1")[1, 2].tolist() == [float(worst > 0)] * 3


def test_fixed_is_linear_between_its_ends_and_clipped_outside(tmp_path):
    array = RNG.uniform(-2000, 3000, (7, 9))
    made = _load(tmp_path, array, "fixed:-1000,400")
    expected = np.minimum(np.maximum((array + 1000) / 1400, 0), 1)
    np.testing.assert_allclose(made, expected[..., None].repeat(3, 2), rtol=0, atol=1e-14)
    assert made.min() == 0
    assert made.max() == 1


def test_percentiles_are_of_the_finite_pixels_of_all_channels(tmp_path):
    array = RNG.normal(100, 20, (11, 13, 3))
    array[0, 0], array[0, 1] = np.nan, np.inf
    made = _load(tmp_path, array, "percentile:2,97")
    ordered = np.sort(array[np.isfinite(array)])
    places = np.array([0.02, 0.97]) * (ordered.size - 1)
    low, high = np.interp(places, np.arange(ordered.size), ordered)
    expected = np.clip((array - low) / (high - low), 0, 1)
    expected[0, 0] = 0
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-12)


def test_asinh_against_its_formula_and_astropys_stretch(tmp_path):
    from astropy.visualization import AsinhStretch

    array = RNG.gamma(0.3, 500, (20, 30))
    linear = _load(tmp_path, array, "percentile:0.5,99.9")
    made = _load(tmp_path, array, "asinh")
    np.testing.assert_allclose(made, np.arcsinh(linear / 0.1) / np.arcsinh(10), rtol=0, atol=1e-14)
    np.testing.assert_allclose(made, AsinhStretch(a=0.1)(linear), rtol=0, atol=1e-12)
    nearly_linear = _load(tmp_path, array, "asinh:1000")  # a softening far above all values: no stretch at all
    np.testing.assert_allclose(nearly_linear, linear, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["percentile:1,98", "asinh:0.1,1,98"])
def test_images_of_one_value_are_black_and_what_is_above_equal_percentiles_white(tmp_path, name):
    flat = np.full((5, 40), 7.0)
    assert not _load(tmp_path, flat, name).any()
    flat[2, 3], flat[4, 4] = 9, 5
    assert np.argwhere(_load(tmp_path, flat, name)[..., 0]).tolist() == [[2, 3]]
    assert np.unique(_load(tmp_path, flat, name)).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["dtype", "fixed:0,1", "percentile:0,100", "asinh"])
def test_missing_values_are_black_and_all_missing_is_an_error(tmp_path, name):
    array = RNG.random((6, 5))
    array[1:3, 2] = np.nan
    made = _load(tmp_path, array, name)
    assert not made[1:3, 2].any()
    assert np.isfinite(made).all()
    with pytest.raises(ImageError, match="no pixel that is a number"):
        _load(tmp_path, np.full((6, 5), np.nan), name)


def test_a_window_is_a_dicom_files_own(tmp_path):
    with pytest.raises(ImageError, match=r"no window of its own, as some DICOM files have: choose --range"):
        _load(tmp_path, np.zeros((4, 4)), "window")


def test_a_16_bit_ramp_stays_a_ramp(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    made = _load(tmp_path, ramp)
    assert made.dtype == np.float64
    assert (np.diff(made[..., 0].ravel()) > 0).all()
    np.testing.assert_array_equal(np.rint(made * 65535), np.repeat(ramp[..., None], 3, axis=2))
    eight = np.asarray(load_rgb(tmp_path / "a.npy"))
    np.testing.assert_array_equal(eight, np.rint(made * 255))
    values, counts = np.unique(eight[..., 0], return_counts=True)
    assert values.tolist() == list(range(256))
    assert counts[1:-1].tolist() == [257] * 254  # 65,535 steps into 255 equal ones, the ends half of one


def test_rounding_to_8_bit_is_its_own_inverse():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(levels / 255), levels)


def test_the_default_is_the_stored_types_own_range():
    assert ValueRange() == DTYPE_RANGE == parse_range("dtype")
    with pytest.raises(ConfigError, match="unknown range 'gamma'"):
        ValueRange("gamma")
