"""Noises of instruments: moments against their formulas, distributions, correlation, and another library's sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.clipping import stored
from dinov2_noise.noise.correlated import Correlated
from dinov2_noise.noise.physics import Gamma, Rician, SaltPepper, Sensor

SHAPE = (300, 300, 3)
COUNT = 270_000


def _rician_mean(x, sigma):
    """sigma sqrt(pi/2) L(-x^2 / (2 sigma^2)), L the Laguerre function of order 1/2, by Bessel functions."""
    from scipy.special import i0e, i1e

    half = x**2 / (4 * sigma**2)
    return sigma * math.sqrt(math.pi / 2) * ((1 + 2 * half) * i0e(half) + 2 * half * i1e(half))


def _rician(x, sigma_255):
    mean = _rician_mean(x, sigma_255 / 255)
    return mean, x**2 + 2 * (sigma_255 / 255) ** 2 - mean**2


@pytest.mark.parametrize(
    ("model", "x", "mean", "variance"),
    [
        *((Sensor(2000, 5), x, x, x / 2000 + (5 / 255) ** 2) for x in (0.2, 0.5, 0.8)),
        *((Rician(10), x, *_rician(x, 10)) for x in (0.0, 0.05, 0.5, 0.7)),
        *((SaltPepper(0.3), x, 0.7 * x + 0.15, 0.7 * x**2 + 0.15 - (0.7 * x + 0.15) ** 2) for x in (0.0, 0.3, 1.0)),
        *((Gamma(64), x, x, x**2 / 64) for x in (0.1, 0.3, 0.5)),
        *((Correlated(8, 0.6), x, x, (8 / 255) ** 2) for x in (0.2, 0.5, 0.8)),
    ],
)
def test_moments_where_nothing_clips(model, x, mean, variance):
    sampled = model.sample(np.full(SHAPE, x), np.random.default_rng(1))
    # Neighbours that share their noise are worth fewer: by the sum of the squared autocorrelation.
    worth = 4 * math.pi * model.radius_px**2 if isinstance(model, Correlated) else 1
    assert sampled.mean() == pytest.approx(mean, abs=5 * (variance * worth / COUNT) ** 0.5)
    assert sampled.var() == pytest.approx(variance, rel=0.02)


def test_without_signal_rician_noise_is_rayleigh_noise():
    sampled = Rician(20).sample(np.zeros(SHAPE), np.random.default_rng(0))
    sigma = 20 / 255
    assert sampled.mean() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.005)
    assert np.median(sampled) == pytest.approx(sigma * math.sqrt(2 * math.log(2)), rel=0.01)


def test_one_look_is_the_exponential_distribution():
    sampled = Gamma(1).sample(np.full(SHAPE, 0.1), np.random.default_rng(0))
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(sampled, quantile) == pytest.approx(-0.1 * math.log(1 - quantile), rel=0.02)


def test_salt_and_pepper_hit_single_values_equally_often():
    made = SaltPepper(0.2).sample(np.full(SHAPE, 0.5), np.random.default_rng(0))
    tolerance = 4 * (0.09 / COUNT) ** 0.5
    assert np.mean(made == 0) == pytest.approx(0.1, abs=tolerance)
    assert np.mean(made == 1) == pytest.approx(0.1, abs=tolerance)
    assert np.mean(made == 0.5) == pytest.approx(0.8, abs=2 * tolerance)
    lost = made != 0.5
    assert abs(np.corrcoef(lost[..., 0].ravel(), lost[..., 1].ravel())[0, 1]) < 4 / 300


@pytest.mark.parametrize("name", ["saltpepper0.2", "gamma1"])
def test_black_stays_black_where_the_formula_says_so(name):
    made = parse(name).sample(np.zeros((50, 50, 3)), np.random.default_rng(0))
    assert set(np.unique(made)) == ({0.0, 1.0} if name == "saltpepper0.2" else {0.0})


TRUTHS = np.array([0, 1, 13, 51, 128, 204, 254, 255], dtype=np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        *("poissongauss1_50", "poissongauss10_20", "poissongauss1000_2", "rician5", "rician25", "rician200"),
        *("saltpepper0.05", "saltpepper0.7", "gamma0.5", "gamma1", "gamma16", "correlated25_1"),
    ],
)
def test_what_is_stored_has_the_moments_of_the_exact_distribution(name):
    """Clipped, truncated to 8 bit: mean, variance, shares of black and white, four standard errors each."""
    side = 150
    rows = np.repeat(TRUTHS, side)[:, None, None]
    made = noisy_uint8(np.broadcast_to(rows, (len(rows), side, 1)).copy(), parse(name), relative_path=f"{name}.png")
    values = made.reshape(len(TRUTHS), -1) / 255
    expected, count = stored(parse(name), TRUTHS / 255), values.shape[1]
    if "correlated" in name:
        count /= 4 * math.pi  # pixels that are worth one
    assert np.all(np.abs(values.mean(1) - expected.mean) <= 4 * expected.std / count**0.5 + 1e-12)
    centred = np.square(values - expected.mean[:, None])
    assert np.all(np.abs(centred.mean(1) - expected.std**2) <= 4 * centred.std(1) / count**0.5 + 1e-9)
    for share, found in ((expected.black, values == 0), (expected.white, values == 1)):
        assert np.all(np.abs(found.mean(1) - share) <= 4 * np.sqrt(share * (1 - share) / count) + 4 / count)


def test_counts_and_read_noise_are_summed_exactly():
    """Against the sum over counts, one by one, in plain Python."""
    noise, x, threshold = Sensor(7, 30), 0.4, 0.61
    chance = 0.0
    for count in range(80):
        poisson = math.exp(-7 * x) * (7 * x) ** count / math.factorial(count)
        chance += poisson * math.erfc((threshold - count / 7) / (30 / 255) / math.sqrt(2)) / 2
    assert float(noise.exceeds(np.array(x), np.array(threshold))) == pytest.approx(chance, abs=1e-12)
    many = noise.exceeds(np.array([[0.0], [x], [1.0]]), np.array([0.0, threshold, 1.5]))
    assert many.shape == (3, 3)
    assert many[1] == pytest.approx([1, chance, 0], abs=1e-12)


@pytest.mark.parametrize("radius", [0.4, 1.0, 2.5])
def test_autocorrelation_is_that_of_the_kernel(radius):
    model = Correlated(5, radius)
    noise = model.sample(np.full(SHAPE, 0.5), np.random.default_rng(3)) - 0.5
    kernel = model.kernel()
    assert float(kernel @ kernel) == pytest.approx(1)
    tolerance = 5 * (4 * math.pi * max(radius, 0.3) ** 2 / COUNT) ** 0.5
    for down, right in [(0, 1), (1, 0), (1, 1), (0, 3), (2, 2)]:
        found = np.mean(noise[down:, right:] * noise[: 300 - down, : 300 - right]) / (5 / 255) ** 2
        exact = _lagged(kernel, down) * _lagged(kernel, right)
        assert found == pytest.approx(exact, abs=tolerance)
        if radius >= 1:
            assert exact == pytest.approx(math.exp(-(down**2 + right**2) / (4 * radius**2)), abs=2e-3)
    assert abs(np.mean(noise[..., 0] * noise[..., 1])) / (5 / 255) ** 2 < tolerance * 3**0.5


def _lagged(kernel, lag):
    return float(kernel[lag:] @ kernel[: len(kernel) - lag])


def test_correlated_noise_is_as_strong_at_the_edge():
    model, rng = Correlated(5, 3), np.random.default_rng(0)
    noise = np.stack([model.sample(np.full((24, 24, 3), 0.5), rng) - 0.5 for _ in range(400)])
    strength = noise.std(axis=(0, 3)) / (5 / 255)  # 1,200 independent values each: standard error 0.02
    assert np.abs(strength - 1).max() < 0.1
    assert strength[:2].mean() == pytest.approx(strength[10:14].mean(), abs=0.02)


# deepinv's own sampling of the same physics; the levels in its own parameters.
PEERS = [
    ("poissongauss30_5", lambda noise: noise.PoissonGaussianNoise(gain=1 / 30, sigma=5 / 255)),
    ("rician25", lambda noise: noise.RicianNoise(sigma=25 / 255)),
    ("saltpepper0.2", lambda noise: noise.SaltPepperNoise(p=0.1, s=0.1)),
    ("gamma4", lambda noise: noise.GammaNoise(l=4.0)),
    ("gauss25", lambda noise: noise.GaussianNoise(sigma=25 / 255)),
    ("shot10", lambda noise: noise.PoissonNoise(gain=1 / 10, normalize=True)),
]


@pytest.mark.parametrize(("name", "peer"), PEERS, ids=[name for name, _ in PEERS])
def test_moments_agree_with_deepinv(name, peer):
    deepinv = pytest.importorskip("deepinv")
    import torch

    torch.manual_seed(0)
    for x in (0.1, 0.5, 0.9):
        theirs = peer(deepinv.physics)(torch.full((1, 3, 300, 300), x)).double().clamp(0, 1).numpy()
        ours = parse(name).sample(np.full(SHAPE, x), np.random.default_rng(0))
        error = (theirs.var() + ours.var()) / COUNT
        assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * error**0.5)
        assert ours.var() == pytest.approx(theirs.var(), rel=0.03)
        assert np.mean(ours == 1) == pytest.approx(np.mean(theirs == 1), abs=0.006)
