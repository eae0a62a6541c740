"""Padding: the two rules, and reflection as NumPy does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neighbor2neighbor import padded_size, reflect_to


@pytest.mark.parametrize("side", [1, 2, 3, 5, 17, 31, 32, 33, 100])
def test_reflection_equals_numpys_for_every_size(side: int) -> None:
    image = np.random.default_rng(side).integers(0, 256, (3, side, 7), dtype=np.uint8)
    for wanted in {side, side + 1, 2 * side - 1, 2 * side, 3 * side, 5 * side + 2, 128} - set(range(side)):
        expected = np.pad(image, ((0, 0), (0, wanted - side), (0, 25)), mode="reflect")
        found = reflect_to(torch.from_numpy(image), (wanted, 32))
        assert np.array_equal(found.numpy(), expected), wanted


def test_nothing_to_add_returns_the_image_itself() -> None:
    image = torch.rand(3, 32, 64)
    assert reflect_to(image, (32, 64)) is image


@pytest.mark.parametrize(
    ("height", "width", "multiple", "sides", "square"),
    [
        (375, 500, 32, (384, 512), (512, 512)),
        (500, 375, 64, (512, 384), (512, 512)),
        (32, 32, 32, (32, 32), (32, 32)),
        (33, 1, 32, (64, 32), (64, 64)),
        (1, 4000, 32, (32, 4000), (4000, 4000)),
        (65, 10, 64, (128, 64), (128, 128)),
    ],
)
def test_the_two_rules(height: int, width: int, multiple: int, sides: object, square: object) -> None:
    assert padded_size(height, width, multiple_px=multiple) == sides
    assert padded_size(height, width, multiple_px=multiple, padding="square") == square
