"""Mean and spread of stored noisy pixels: exact sums against the pipeline itself, and the numbers of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.clipping import PoissonGaussian, stored

PUBLISHED = (
    *("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7", "speckle1.0"),
    "gauss2",
)
TRUTHS = np.array([0, 1, 13, 51, 128, 204, 254, 255], dtype=np.uint8)
SIDE_PX = 200


@pytest.mark.parametrize("name", PUBLISHED)
def test_moments_are_those_of_the_pipeline(name: str) -> None:
    rows = np.repeat(TRUTHS, SIDE_PX)[:, None, None]
    made = noisy_uint8(
        np.broadcast_to(rows, (len(rows), SIDE_PX, 1)).copy(), parse(name), relative_path=f"{name}.png"
    ).reshape(len(TRUTHS), -1)
    expected, count = stored(parse(name), TRUTHS / 255), made.shape[1]
    values = made / 255
    # Four standard errors: of a mean, of a variance (with the fourth moment), and of a share.
    assert np.all(np.abs(values.mean(1) - expected.mean) <= 4 * expected.std / count**0.5 + 1e-12)
    centred = np.square(values - expected.mean[:, None])
    assert np.all(np.abs(centred.mean(1) - expected.std**2) <= 4 * centred.std(1) / count**0.5 + 1e-9)
    for share, found in ((expected.black, made == 0), (expected.white, made == 255)):
        assert np.all(np.abs(found.mean(1) - share) <= 4 * np.sqrt(share * (1 - share) / count) + 4 / count)


def test_gauss255_compresses_contrast_as_published() -> None:
    # Published for real-valued y: 0.315, 0.50, 0.684. Truncation takes half a grey level where values are not clipped.
    black, grey, white = stored(parse("gauss255"), np.array([0, 0.5, 1])).mean
    assert (black, white) == pytest.approx((0.315, 0.684), abs=0.001)
    assert grey == pytest.approx(0.5 - 0.383 * 0.5 / 255, abs=2e-5)  # P(0 < N(0.5, 1) < 1) = 0.383


@pytest.mark.parametrize("photons", [1, 3, 7, 10, 49, 51, 85])
def test_shot_noise_is_counted_exactly(photons: int) -> None:
    """At quotients that are whole grey levels, floating point decides which one is stored: as the pipeline does."""
    counts = np.arange(photons * 3 + 60)
    for x in (0.0, 0.3, 1.0):
        log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))
        rate = x * photons
        chance = np.exp(counts * np.log(rate) - rate - log_factorial) if rate else (counts == 0).astype(float)
        level = (np.clip(counts / photons, 0, 1) * 255).astype(np.uint8) / 255
        mean = float((chance * level).sum())
        found = stored(parse(f"shot{photons}"), np.array(x))
        assert float(found.mean) == pytest.approx(mean, abs=1e-9)
        assert float(found.std) ** 2 == pytest.approx(float((chance * level**2).sum()) - mean**2, abs=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_mean_rises_with_the_truth_and_less_than_it(name: str) -> None:
    x = np.linspace(0, 1, 401)
    mean = stored(parse(name), x).mean
    assert np.all(np.diff(mean) >= -1e-12)
    assert mean[-1] - mean[0] < 1
    assert np.all(np.diff(stored(parse(name), x).black) <= 1e-12)


def test_thresholds_outside_the_range_are_certain() -> None:
    x = np.array([0.0, 0.4, 1.0])
    for name in PUBLISHED:
        noise = parse(name)
        np.testing.assert_array_equal(noise.exceeds(x, np.array(0.0)), 1)
        np.testing.assert_array_equal(noise.exceeds(x, np.array(1.0 + 1e-9)), 0)
        assert noise.exceeds(x[:, None], np.linspace(0, 1, 5)).shape == (3, 5)


def test_poisson_gaussian_has_the_moments_it_is_named_for() -> None:
    noise = PoissonGaussian(a=0.01, b=0.0004)
    found = stored(noise, np.array(0.5))
    assert float(found.mean) == pytest.approx(0.5 - 0.5 / 255, abs=1e-4)
    assert float(found.std) == pytest.approx((0.01 * 0.5 + 0.0004) ** 0.5, rel=0.002)
    sampled = noise.sample(np.full((300, 300, 3), 0.1), np.random.default_rng(0))
    truncated = np.floor(sampled * 255) / 255
    expected = stored(noise, np.array(0.1))
    assert truncated.mean() == pytest.approx(float(expected.mean), abs=4 * float(expected.std) / 270_000**0.5)
