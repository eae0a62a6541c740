"""Changes of colour: bit by bit Pillow's on 8 bits, and torchvision's on floating point for what is not rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from augment_chains import photograph, planes
from PIL import Image
from torchvision.transforms import functional as tvf

from dinov2_noise.augment import colour

REFERENCE = {
    "brightness": tvf.adjust_brightness,
    "contrast": tvf.adjust_contrast,
    "saturation": tvf.adjust_saturation,
    "hue": tvf.adjust_hue,
    "solarize": tvf.solarize,
}
VALUES = {
    "brightness": (0.0, 0.6, 0.987, 1.0, 1.4),
    "contrast": (0.0, 0.6, 0.987, 1.0, 1.4),
    "saturation": (0.0, 0.8, 0.987, 1.0, 1.2),
    "solarize": (0.0, 128, 200, 256),
}
CASES = [(name, value) for name, values in VALUES.items() for value in values]
TURNS = (-0.5, -0.1, -0.001, 0.0, 0.001, 0.03, 0.1, 0.5)


def colours(n_px: int = 300) -> Image.Image:
    """Any, and among them greys and dark ones, where hue and saturation jump."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (n_px, n_px, 3))
    values[: n_px // 3] = values[: n_px // 3] // 16
    values[: n_px // 9, :, 1:] = values[: n_px // 9, :, :1]
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
@pytest.mark.parametrize("image", [colours(), photograph("coffee")], ids=["colours", "photograph"])
def test_a_change_is_pillows_bit_by_bit(name: str, value: float, image: Image.Image) -> None:
    found = planes(image)
    getattr(colour, name)(found, value)
    assert np.array_equal(found, planes(REFERENCE[name](image, value)))


@pytest.mark.parametrize("image", [colours(), photograph("coffee")], ids=["colours", "photograph"])
def test_grey_is_pillows_bit_by_bit(image: Image.Image) -> None:
    found = planes(image)
    colour.grayscale(found)
    assert np.array_equal(found, planes(tvf.rgb_to_grayscale(image, 3)))


@pytest.mark.parametrize("turns", TURNS)
def test_hue_is_pillows_but_for_some_in_a_million(turns: float) -> None:
    """One level off where Pillow's float64 and our float32 fall on different sides of a half."""
    for image in (colours(600), photograph("coffee")):
        found = planes(image)
        colour.hue(found, turns)
        difference = np.abs(found - planes(tvf.adjust_hue(image, turns)))
        assert difference.max() <= 1
        assert difference.mean() < 2e-5


@pytest.mark.parametrize(("name", "value"), [case for case in CASES if case[0] != "solarize"], ids=str)
def test_unrounded_is_torchvisions_on_floating_point(name: str, value: float) -> None:
    image = photograph("chelsea")
    found = planes(image)
    getattr(colour, name)(found, value, eight_bit=False)
    # Its weights of luma are 0.2989, 0.587, 0.114, which do not sum to 1.
    expected = 255 * REFERENCE[name](torch.from_numpy(planes(image)).double() / 255, value)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("turns", TURNS)
def test_unrounded_hue_is_torchvisions_on_floating_point(turns: float) -> None:
    image = colours()
    found = planes(image)
    colour.hue(found, turns, eight_bit=False)
    expected = 255 * tvf.adjust_hue(torch.from_numpy(planes(image)).double() / 255, turns)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


def test_unrounded_steps_of_a_256th_survive() -> None:
    """What 16 bits hold between two of 8 bits is still there after a change."""
    ramp = np.broadcast_to(np.linspace(100, 101, 257, dtype=np.float32), (3, 1, 257)).copy()
    for change in (colour.brightness, colour.contrast, colour.saturation, colour.hue):
        found = ramp.copy()
        change(found, 0.9, eight_bit=False)
        assert len(np.unique(found[0])) > 250, change.__name__
        change(ramp.copy(), 0.9)


def test_turning_the_hue_keeps_the_value_and_a_whole_turn_is_none() -> None:
    start = planes(colours())
    found = start.copy()
    colour.hue(found, 0.37, eight_bit=False)
    np.testing.assert_allclose(found.max(0), start.max(0), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.min(0), start.min(0), rtol=0, atol=1e-3)
    colour.hue(found, 0.63, eight_bit=False)
    np.testing.assert_allclose(found, start, rtol=0, atol=5e-3)
