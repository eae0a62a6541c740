"""The draws of torchvision's transforms without the transforms: the same numbers, from the same places."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from augment_chains import changes, geometry, photograph
from PIL import Image
from scipy import stats
from torchvision import transforms

from dinov2_noise.augment.chains import read
from dinov2_noise.augment.draws import Draws
from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.errors import PluginError

TAIL = (transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3))
# Height and width: usual, so narrow that no crop fits, and as small as can be.
SIZES = ((375, 500), (20, 2000), (2000, 20), (1, 1), (7, 9))


def drawn(of: Draws, seed: int, height: int = 375, width: int = 500) -> dict[str, tuple[float, ...]]:
    with rng_scope(seed):
        return dict(of.draw(height, width))


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_is_where_torchvision_puts_it(size: tuple[int, int]) -> None:
    crop = transforms.RandomResizedCrop(224, scale=(0.05, 0.32), interpolation=transforms.InterpolationMode.BICUBIC)
    draws, image = read(crop, *TAIL), Image.new("RGB", size[::-1])
    for seed in range(200):
        with rng_scope(seed):
            expected = crop.get_params(image, list(crop.scale), list(crop.ratio))
            after = torch.rand(())
        with rng_scope(seed):
            assert draws.draw(*size) == [("crop", (*expected, 224, 224))]
            assert torch.equal(torch.rand(()), after)


def test_a_jitter_has_torchvisions_order_and_factors() -> None:
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    draws = read(jitter, *TAIL)
    names = ("brightness", "contrast", "saturation", "hue")
    for seed in range(200):
        with rng_scope(seed):
            order, *factors = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        with rng_scope(seed):
            assert draws.draw(9, 9) == [(names[which], (factors[which],)) for which in order.tolist()]


def test_a_jitter_without_some_of_its_ranges() -> None:
    jitter = transforms.ColorJitter(contrast=0.4)
    with rng_scope(1):
        _, _, factor, _, _ = jitter.get_params(None, jitter.contrast, None, None)
        after = torch.rand(())
    with rng_scope(1):
        assert read(jitter, *TAIL).draw(9, 9) == [("contrast", (factor,))]
        assert torch.equal(torch.rand(()), after)


@pytest.mark.parametrize(("p_blur", "p_solarize"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_generator_stands_where_torchvision_leaves_it(p_blur: float, p_solarize: float) -> None:
    """Each draw decides whether others follow, so that equal ends mean equal ways."""
    chain = (geometry(16, (0.32, 1.0)), changes(p_blur, p_solarize))
    draws, image = read(*chain), photograph("coffee", 40, 30)
    for seed in range(60):
        with rng_scope(seed):
            chain[1](chain[0](image))
            expected = torch.get_rng_state()
        with rng_scope(seed):
            draws.draw(30, 40)
            assert torch.equal(torch.get_rng_state(), expected)


def test_ranges_and_shares_are_those_of_the_transforms() -> None:
    draws = read(geometry(224, (0.32, 1.0)), changes(0.5, 0.2))
    count = 2000
    found = [drawn(draws, seed) for seed in range(count)]
    shares = Counter(name for actions in found for name in actions)
    for name, p in {"flip": 0.5, "brightness": 0.8, "hue": 0.8, "grayscale": 0.2, "blur": 0.5, "solarize": 0.2}.items():
        assert abs(shares[name] / count - p) < 4 * (p * (1 - p) / count) ** 0.5, name
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
    ):
        values = np.array([actions[name][0] for actions in found if name in actions])
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4, name
    sigmas = [actions["blur"][1] for actions in found if "blur" in actions]
    assert stats.kstest(sigmas, "uniform", (0.1, 1.9)).pvalue > 1e-4
    boxes = np.array([actions["crop"] for actions in found])
    areas = boxes[:, 2] * boxes[:, 3] / (375 * 500)
    assert 0.31 < areas.min() < 0.33
    assert 0.97 < areas.max() <= 1


def test_first_of_a_jitter_is_each_as_often() -> None:
    draws = read(transforms.ColorJitter(0.4, 0.4, 0.2, 0.1), *TAIL)
    first = Counter(next(iter(drawn(draws, seed))) for seed in range(1000))
    assert stats.chisquare(list(first.values())).pvalue > 1e-4
    assert len(first) == 4


def test_they_pickle() -> None:
    draws = read(geometry(224, (0.32, 1.0)), changes(0.5, 0.2))
    copy = pickle.loads(pickle.dumps(draws))
    assert [drawn(copy, seed) for seed in range(20)] == [drawn(draws, seed) for seed in range(20)]
    assert np.array_equal(copy.mean, draws.mean)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ((transforms.RandomInvert(), *TAIL), "holds RandomInvert"),
        ((transforms.RandomApply([transforms.RandomRotation(9)]), *TAIL), "holds RandomRotation"),
        ((transforms.RandomResizedCrop(9), *TAIL), "resizes by bilinear, not bicubic"),
        ((transforms.GaussianBlur((3, 5)), *TAIL), "kernel of 3x5, not square"),
        ((transforms.RandomHorizontalFlip(), transforms.ToTensor()), "does not end with ToTensor and Normalize"),
    ],
    ids=["unknown", "unknown in a gate", "bilinear", "not square", "no tensor"],
)
def test_what_is_not_known_is_refused(chain: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(PluginError, match=f"{reason}.* Set `loader: {{augmentation: upstream}}`"):
        read(*chain)
