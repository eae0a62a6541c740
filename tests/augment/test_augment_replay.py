"""Random draws: scoped, restored, and the same for both images of a pair."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tvf

from dinov2_noise.augment.replay import capture, paired, replay, rng_scope

Transform = Callable[[Image.Image], Image.Image]


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002 - the global one is meant


def photograph(seed: int, size: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def ramp(blue: int, size: int = 64) -> Image.Image:
    """Red is the column, green the row: what a crop shows tells where it was taken."""
    y, x = np.mgrid[:size, :size]
    return Image.fromarray(np.stack([4 * x, 4 * y, np.full_like(x, blue)], axis=-1).astype(np.uint8))


def geometry() -> Transform:
    crop = transforms.RandomResizedCrop(24, (0.1, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)
    return transforms.Compose([crop, transforms.RandomHorizontalFlip()])


def everything() -> Transform:
    """The random parts of DINOv2's global crops, each likely to act."""
    return transforms.Compose(
        [
            geometry(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.GaussianBlur(9, (0.1, 2.0))], p=0.5),
            transforms.RandomSolarize(threshold=128, p=0.2),
        ]
    )


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_a_scope_seeds_all_three_generators_and_restores_them() -> None:
    before = capture()
    expected_after = draw()
    replay(before)
    with rng_scope(2**62 + 5):
        first = draw()
    assert draw() == expected_after
    with rng_scope(2**62 + 5):
        assert draw() == first
    with rng_scope(2**62 + 6):
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_a_scope_restores_after_an_error_and_nests() -> None:
    before = capture()
    expected_after = draw()
    replay(before)

    def fail() -> None:
        with rng_scope(1), rng_scope(2):
            draw()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert draw() == expected_after


def test_a_scope_does_not_touch_the_cuda_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    with rng_scope(3):
        pass
    assert seeded == []


@pytest.mark.parametrize("seed", range(12))
def test_a_pair_of_equal_images_stays_equal_bit_for_bit(seed: int) -> None:
    with rng_scope(seed):
        first, second = paired(everything(), photograph(0), photograph(0))
    np.testing.assert_array_equal(pixels(first), pixels(second))


def test_a_pair_leaves_the_generators_as_one_application_does() -> None:
    transform = everything()
    with rng_scope(5):
        alone = transform(photograph(0))
        expected_next = draw()
    with rng_scope(5):
        first, _ = paired(transform, photograph(0), photograph(1))
        assert draw() == expected_next
    np.testing.assert_array_equal(pixels(first), pixels(alone))


@pytest.mark.parametrize("seed", range(8))
def test_different_images_of_a_pair_get_the_same_crop_and_flip(seed: int) -> None:
    with rng_scope(seed):
        first, second = paired(geometry(), ramp(blue=0), ramp(blue=200))
    np.testing.assert_array_equal(pixels(first)[..., :2], pixels(second)[..., :2])
    assert pixels(first)[..., 2].max() == 0
    assert pixels(second)[..., 2].min() == 200


@pytest.mark.parametrize("seed", range(8))
def test_different_images_of_a_pair_get_the_same_jitter_in_the_same_order(seed: int) -> None:
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    with rng_scope(seed):
        order, *factors = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    with rng_scope(seed):
        outputs = paired(jitter, photograph(0), photograph(1))
    adjust = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
    for image, output in zip((photograph(0), photograph(1)), outputs, strict=True):
        expected = image
        for which in order.tolist():
            expected = adjust[which](expected, factors[which])
        np.testing.assert_array_equal(pixels(output), pixels(expected))


def test_without_pairing_the_twins_would_differ() -> None:
    transform = everything()
    with rng_scope(5):
        first, second = transform(photograph(0)), transform(photograph(0))
    assert not np.array_equal(pixels(first), pixels(second))


def test_a_failing_second_image_leaves_the_generators_in_order() -> None:
    def transform(value: int) -> float:
        drawn = random.random()
        if value:
            raise ValueError("second")
        return drawn

    with rng_scope(4):
        random.random()
        expected_next = draw()
    with rng_scope(4):
        with pytest.raises(ValueError, match="second"):
            paired(transform, 0, 1)
        assert draw() == expected_next
