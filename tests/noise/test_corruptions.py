"""The corruptions of ImageNet-C: parity with loops written from the definition, then what holds for all of them."""

from __future__ import annotations

import pickle

import corruption_reference as slow
import numpy as np
import pytest
import spatter_reference
from helpers import run_python
from PIL import Image
from skimage import data
from torchvision.transforms import CenterCrop, Resize

from dinov2_noise.errors import ImageError, NoiseNameError
from dinov2_noise.noise import Gaussian
from dinov2_noise.noise.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    Corruption,
    corrupted_uint8,
    parse_corruption,
    parse_names,
    parse_severities,
    standard_crop,
)
from dinov2_noise.noise.corruptions.frost import frost_picture

EVERY = [*CORRUPTIONS, *EXTRA_CORRUPTIONS]
# Parameters per severity as ImageNet-C's code has them, and (in the second place) the reference.
PARITY = {
    "gaussian_noise": (slow.additive, [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)], True),
    "shot_noise": (slow.shot, [(60,), (25,), (12,), (5,), (3,)], True),
    "impulse_noise": (slow.impulse, [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)], True),
    "speckle_noise": (slow.multiplicative, [(0.15,), (0.2,), (0.35,), (0.45,), (0.6,)], True),
    "defocus_blur": (slow.defocus, [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)], False),
    "glass_blur": (slow.glass, [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)], True),
    "motion_blur": (slow.motion, [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)], True),
    "zoom_blur": (slow.zoom, [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)], False),
    "gaussian_blur": (slow.blur, [(1,), (2,), (3,), (4,), (6,)], False),
    "snow": (
        slow.snow,
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
        True,
    ),
    "fog": (slow.fog, [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)], True),
    "brightness": (slow.brighter, [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)], False),
    "contrast": (slow.contrast, [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)], False),
    "saturate": (slow.saturated, [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)], False),
    "pixelate": (slow.pixelated, [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)], False),
    "elastic_transform": (
        slow.elastic,
        [
            (244 * 2, 244 * 0.7, 244 * 0.1),
            (244 * 2, 244 * 0.08, 244 * 0.2),
            (244 * 0.05, 244 * 0.01, 244 * 0.02),
            (244 * 0.07, 244 * 0.01, 244 * 0.02),
            (244 * 0.12, 244 * 0.01, 244 * 0.02),
        ],
        True,
    ),
}
WATER = [(0.65, 0.3, 4, 0.69, 0.6), (0.65, 0.3, 3, 0.68, 0.6), (0.65, 0.3, 2, 0.68, 0.5)]
MUD = [(0.65, 0.3, 1, 0.65, 1.5), (0.67, 0.4, 1, 0.65, 1.5)]
FIXED = {"defocus_blur", "zoom_blur", "brightness", "contrast"}
FIXED |= {"pixelate", "jpeg_compression", "gaussian_blur", "saturate"}  # that draw nothing
FROST = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)]


def _photograph(width: int, height: int) -> np.ndarray:
    """The coffee cup, 8-bit."""
    return np.asarray(Image.fromarray(data.coffee()).resize((width, height), Image.Resampling.BILINEAR))


def _unit(image_uint8: np.ndarray) -> np.ndarray:
    return image_uint8.astype(np.float64) / 255


SMALL = _unit(_photograph(33, 28))


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", PARITY)
def test_equals_the_loops(name, severity):
    function, parameters, draws = PARITY[name]
    given = (*parameters[severity - 1], np.random.default_rng(severity)) if draws else parameters[severity - 1]
    expected = np.clip(function(SMALL, *given), 0, 1)
    made = Corruption(name, severity).sample(SMALL, np.random.default_rng(severity))
    # Where the package computes in float32, or Pillow rounds to 8 bit in between.
    tolerance = {"zoom_blur": 1e-6, "motion_blur": 1e-6, "snow": 1e-6, "pixelate": 1.01 / 255}.get(name, 1e-9)
    np.testing.assert_allclose(made, expected, rtol=0, atol=tolerance)
    assert np.abs(made - SMALL).max() > 0.01


@pytest.mark.parametrize("severity", [2, 4])
@pytest.mark.parametrize("name", ["glass_blur", "snow", "fog", "elastic_transform", "saturate"])
def test_equals_the_loops_at_the_other_severities(name, severity):
    test_equals_the_loops(name, severity)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_equals_the_loops(severity):
    image = _unit(_photograph(42, 36))
    function = spatter_reference.water if severity <= 3 else spatter_reference.mud
    expected = function(image, *(WATER + MUD)[severity - 1], np.random.default_rng(3))
    made = Corruption("spatter", severity).sample(image, np.random.default_rng(3))
    np.testing.assert_allclose(made, np.clip(expected, 0, 1), rtol=0, atol=1e-9)
    assert np.abs(made - image).max() > 0.05


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_equals_the_loops(severity):
    expected = slow.frost(SMALL, *FROST[severity - 1], np.random.default_rng(severity), frost_picture)
    made = Corruption("frost", severity).sample(SMALL, np.random.default_rng(severity))
    np.testing.assert_allclose(made, np.clip(expected, 0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_of_a_gray_photograph_equals_the_standard(severity):
    gray = _unit(_photograph(48, 40))[..., 1]
    expected = slow.jpeg_of_gray(gray, [25, 18, 15, 10, 7][severity - 1])
    made = Corruption("jpeg_compression", severity).sample(np.stack([gray] * 3, -1), np.random.default_rng(0))
    # Decoders of the standard may differ by a level; a coefficient at half a step falls to either side.
    difference = np.abs(made - expected[..., None]) * 255
    assert np.mean(difference > 1.01) < 0.04
    assert difference.mean() < 0.5


PHOTOGRAPH = _photograph(96, 64)


@pytest.mark.parametrize("name", EVERY)
def test_damage_grows_with_severity(name):
    """Mean squared error over draws; where the definition itself is not monotone, the last against the first."""
    image, errors = _unit(PHOTOGRAPH), []
    for severity in SEVERITIES:
        corruption = Corruption(name, severity)
        draws = [corruption.sample(image, np.random.default_rng(seed)) for seed in range(12)]
        errors.append(np.mean([(draw - image) ** 2 for draw in draws]))
    # elastic_transform: 1 and 2 move the whole image, 3 to 5 its parts; saturate: 1 and 2 fade, 3 to 5 enrich.
    if name in ("elastic_transform", "saturate"):
        assert errors[0] < errors[1]
        assert errors[2] < errors[3] < errors[4]
    elif name in ("frost", "glass_blur", "fog"):  # two parameters change against each other
        assert errors[4] > errors[0]
    else:
        assert errors == sorted(errors)
        assert errors[4] > 1.5 * errors[0]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("severity", [1, 5])
def test_valid_at_odd_sizes_and_on_gray_black_and_white(name, severity):
    corruption = Corruption(name, severity)
    least = corruption.min_side_px
    gray = np.repeat(_unit(PHOTOGRAPH)[..., :1], 3, axis=2)
    images = [
        _unit(_photograph(71, 37)),
        gray,
        np.zeros((40, 45, 3)),
        np.ones((40, 45, 3)),
        gray[:least, : least + 1],
        gray[: least + 1, :least],
    ]
    for image in images:
        made = corruption.sample(image, np.random.default_rng(0))
        assert made.shape == image.shape
        assert made.dtype == np.float64
        assert made.min() >= 0
        assert made.max() <= 1  # and so no NaN
    colours = {"frost", "spatter", "saturate", "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"}
    if name not in colours:
        made = corruption.sample(gray, np.random.default_rng(0))
        np.testing.assert_allclose(made[..., 1:], made[..., :1].repeat(2, -1), atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_seed_decides_and_the_input_stays(name):
    corruption, before = Corruption(name, 3), PHOTOGRAPH.copy()
    first = corrupted_uint8(PHOTOGRAPH, corruption, relative_path="val/a/1.JPEG")
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(PHOTOGRAPH, before)
    np.testing.assert_array_equal(first, corrupted_uint8(PHOTOGRAPH, corruption, relative_path="val/a/1.JPEG"))
    is_random = name not in FIXED
    for other in ({"relative_path": "val/a/2.JPEG"}, {"relative_path": "val/a/1.JPEG", "base_seed": 7}):
        assert np.array_equal(first, corrupted_uint8(PHOTOGRAPH, corruption, **other)) != is_random


def test_severities_of_one_image_have_draws_of_their_own():
    noise = [Corruption("gaussian_noise", severity) for severity in (1, 2)]
    gray = np.full((64, 64, 3), 128, np.uint8)
    first, second = (corrupted_uint8(gray, item, relative_path="a.png").astype(float) - 128 for item in noise)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("name", ["motion_blur", "zoom_blur", "gaussian_blur", "defocus_blur", "contrast"])
def test_a_constant_image_loses_no_level_to_rounding(name):
    for level in (0, 1, 100, 254, 255):
        flat = np.full((32, 40, 3), level, np.uint8)
        # The two largest discs of defocus_blur sum to a little more than 1, by definition.
        for severity in SEVERITIES[:3] if name == "defocus_blur" else SEVERITIES:
            made = corrupted_uint8(flat, Corruption(name, severity), relative_path="flat.png")
            np.testing.assert_array_equal(made, flat)


def test_noises_are_those_of_the_noise_models():
    image = _unit(PHOTOGRAPH)
    expected = Gaussian(0.38 * 255).sample(image, np.random.default_rng(1))
    made = Corruption("gaussian_noise", 5).sample(image, np.random.default_rng(1))
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", EVERY)
def test_too_small_an_image_is_named_with_what_it_needs(name):
    corruption = Corruption(name, 2)
    least = corruption.min_side_px
    if least == 1:
        return
    image = np.zeros((least - 1, 50, 3), np.uint8)
    with pytest.raises(ImageError, match=rf"val/a/1\.png.*50x{least - 1} px.*{name}/2.*at least {least} px"):
        corrupted_uint8(image, corruption, relative_path="val/a/1.png")
    with pytest.raises(ValueError, match=f"at least {least} px"):
        corruption.sample(_unit(image), np.random.default_rng(0))


def test_labels_parse_back():
    for name in EVERY:
        for severity in SEVERITIES:
            corruption = Corruption(name, severity)
            assert corruption.label == f"{name}/{severity}"
            assert parse_corruption(corruption.label) == corruption
            assert pickle.loads(pickle.dumps(corruption)) == corruption
    assert len(CORRUPTIONS) == 15
    assert len(EXTRA_CORRUPTIONS) == 4


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("smoke/3", "'smoke'.*gaussian_noise.*jpeg_compression.*saturate"),
        ("", "unknown corruption ''"),
        ("fog", "severity missing in 'fog'.*fog/1 to fog/5"),
        ("fog/", "severity '' of fog.*fog/1 to fog/5"),
        ("fog/0", "severity '0'"),
        ("fog/6", "severity '6'"),
        ("fog/03", "severity '03'"),
        ("fog/³", "severity '³'"),
        ("fog/3/1", "severity '3/1'"),
        ("/3", "unknown corruption ''"),
    ],
)
def test_bad_labels_list_the_valid_ones(label, message):
    with pytest.raises(NoiseNameError, match=message):
        parse_corruption(label)


def test_scipy_waits_for_the_first_corrupted_image():
    """Commands and loader workers that corrupt nothing do not pay for its import."""
    code = (
        "import sys, numpy as np; from dinov2_noise.noise.corruptions import Corruption, parse_corruption;"
        "fog = parse_corruption('fog/3'); print('scipy' in sys.modules, end=' ');"
        "fog.sample(np.ones((4, 4, 3)), np.random.default_rng(0)); print('scipy' in sys.modules)"
    )
    done = run_python("-c", code)
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize("severity", [0, 6, 3.0, True, "3"])
def test_bad_severity(severity):
    with pytest.raises(NoiseNameError, match="valid are 1, 2, 3, 4, 5"):
        Corruption("fog", severity)


def test_lists_of_names_and_severities():
    assert parse_names("all") == (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    assert parse_names("standard") == CORRUPTIONS
    assert parse_names("extra") == EXTRA_CORRUPTIONS
    assert parse_names("fog,snow,fog") == ("fog", "snow")
    assert parse_severities("1,3,5") == (1, 3, 5)
    assert parse_names("fog, snow") == ("fog", "snow")
    with pytest.raises(NoiseNameError, match=r"'smog' in 'fog,smog': write all, standard, extra, or names.*valid are"):
        parse_names("fog,smog")
    with pytest.raises(NoiseNameError, match="'7' in '1,7'"):
        parse_severities("1,7")


@pytest.mark.parametrize("size", [(640, 480), (300, 301), (256, 256), (100, 333), (257, 256)])
@pytest.mark.parametrize("side", [224, 112, 64])
def test_standard_crop_is_that_of_torchvision(size, side):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    expected = CenterCrop(side)(Resize(round(side * 256 / 224))(image))
    np.testing.assert_array_equal(np.asarray(standard_crop(image, side)), np.asarray(expected))


def test_frost_pictures_continue_periodically_and_differ():
    pictures = [frost_picture(kind) for kind in range(5)]
    for picture, mean in zip(pictures, (0.51, 0.81, 0.81, 0.60, 0.48), strict=True):
        assert abs(picture.mean() - mean) < 0.01
        seam = np.abs(picture[0] - picture[-1]).mean()
        inside = np.abs(np.diff(picture, axis=0)).mean()
        assert seam < 1.3 * inside
    assert np.corrcoef(pictures[1].ravel(), pictures[2].ravel())[0, 1] < 0.2
