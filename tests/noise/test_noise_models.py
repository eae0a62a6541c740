"""Noise models: names, formulas, moments, and the numbers of the paper."""

import hashlib
import pickle

import numpy as np
import pytest

from dinov2_noise.errors import NoiseNameError
from dinov2_noise.noise import Gaussian, Shot, Speckle, image_seed, noisy_uint8, parse

PATH = "train/n01440764/n01440764_10026.JPEG"
RAMP = (np.arange(18).reshape(2, 3, 3) * 15).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gauss50", Gaussian(50)),
        ("gauss255", Gaussian(255.0)),
        ("shot10", Shot(10)),
        ("shot0.5", Shot(0.5)),
        ("speckle0.4", Speckle(0.4)),
        ("speckle1.0", Speckle(1)),
        ("gauss1e-07", Gaussian(1e-7)),
        ("gauss1234567.5", Gaussian(1234567.5)),
    ],
)
def test_name_and_parse_are_inverse(name, model):
    assert parse(name) == model
    assert model.name == name
    assert pickle.loads(pickle.dumps(model)) == model


def test_spellings_of_one_level_have_one_name():
    assert parse("speckle1").name == parse("speckle1.0").name == "speckle1.0"
    assert parse("gauss255.0").name == "gauss255"


@pytest.mark.parametrize(
    "name",
    ["", "gauss", "gauss-5", "gaussnan", "gaussinf", "fog3", "255", "gauss 255", "gauss1-", "gauss1_", "gauss5-6-7"],
)
def test_bad_name_lists_the_valid_ones(name):
    with pytest.raises(NoiseNameError) as caught:
        parse(name)
    for example in ("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7"):
        assert example in str(caught.value)


@pytest.mark.parametrize("model", [Gaussian, Shot, Speckle])
@pytest.mark.parametrize("level", [0, -1, float("nan"), float("inf")])
def test_bad_level_is_refused_by_the_model_itself(model, level):
    with pytest.raises(NoiseNameError, match="above 0"):
        model(level)


def test_seed_is_the_md5_of_path_and_base_seed():
    for base_seed in (42, 7, -1):
        digest = hashlib.md5(f"{PATH}_{base_seed}".encode()).digest()
        assert image_seed(PATH, base_seed) == int.from_bytes(digest, "big") % 2**32
    assert image_seed(PATH) == 1336731368
    assert image_seed(PATH, 7) == 950077813
    assert image_seed("train/köln/ä_1.png") == int(hashlib.md5("train/köln/ä_1.png_42".encode()).hexdigest()[-8:], 16)


def test_seed_of_a_name_that_is_not_utf8_is_that_of_its_bytes():
    name = b"train/a/\xff_1.png"
    expected = int(hashlib.md5(name + b"_42").hexdigest()[-8:], 16)
    assert image_seed(name.decode("utf-8", "surrogateescape")) == expected


@pytest.mark.parametrize(
    ("name", "draw", "golden"),
    [
        (
            "gauss255",
            lambda x, rng: x + rng.normal(size=x.shape, scale=255 / 255),
            [0, 0, 255, 115, 128, 104, 0, 215, 255, 0, 0, 100, 255, 255, 225, 255, 231, 255],
        ),
        (
            "shot3",
            lambda x, rng: rng.poisson(x * 3) / 3,
            [0, 0, 0, 0, 0, 0, 170, 85, 85, 255, 255, 85, 85, 170, 170, 170, 255, 0],
        ),
        (
            "speckle0.4",
            lambda x, rng: x + x * rng.normal(size=x.shape, scale=0.4),
            [0, 11, 52, 49, 66, 78, 60, 123, 161, 98, 114, 148, 219, 255, 215, 255, 236, 255],
        ),
    ],
)
def test_pixels_equal_the_published_recipe(name, draw, golden):
    seed = int.from_bytes(hashlib.md5(f"{PATH}_42".encode()).digest(), "big") % 2**32
    expected = np.clip(draw(RAMP / 255.0, np.random.default_rng(seed)), 0, 1) * 255
    made = noisy_uint8(RAMP, parse(name), relative_path=PATH)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, np.floor(expected).astype(np.uint8))
    assert made.ravel().tolist() == golden


def test_result_is_truncated_not_rounded():
    made = noisy_uint8(np.full((200, 200, 3), 128, np.uint8), Gaussian(1e-6), relative_path=PATH)
    assert set(np.unique(made)) == {127, 128}
    assert np.mean(made == 127) == pytest.approx(0.5, abs=0.01)


def test_other_path_and_other_seed_give_other_noise():
    def noise(path, seed):
        return noisy_uint8(RAMP, Gaussian(255), relative_path=path, base_seed=seed)

    np.testing.assert_array_equal(noise("a.png", 42), noise("a.png", 42))
    assert not np.array_equal(noise("a.png", 42), noise("a.png", 43))
    assert not np.array_equal(noise("a.png", 42), noise("a.jpg", 42))


@pytest.mark.parametrize(("truth", "mean"), [(0.0, 0.315), (0.5, 0.5), (1.0, 0.684)])
def test_clipping_biases_gauss255_as_published(truth, mean):
    sampled = Gaussian(255).sample(np.full((300, 300, 3), truth), np.random.default_rng(0))
    assert sampled.min() == 0
    assert sampled.max() == 1
    # Standard error about 0.4 / sqrt(270000) = 0.0008.
    assert sampled.mean() == pytest.approx(mean, abs=0.004)


@pytest.mark.parametrize(
    ("model", "truth", "variance"),
    [
        (Gaussian(12.75), 0.5, 0.05**2),
        (Shot(1000), 0.25, 0.25 / 1000),
        (Shot(4000), 0.5, 0.5 / 4000),
        (Speckle(0.1), 0.5, 0.05**2),
        (Speckle(0.1), 0.2, 0.02**2),
    ],
)
def test_moments_where_nothing_clips(model, truth, variance):
    sampled = model.sample(np.full((300, 300, 3), truth), np.random.default_rng(1))
    assert 0 < sampled.min() < sampled.max() < 1
    assert sampled.mean() == pytest.approx(truth, abs=5 * (variance / 270_000) ** 0.5)
    assert sampled.var() == pytest.approx(variance, rel=0.02)


def test_noise_is_independent_of_channel_and_neighbour():
    deviation = Gaussian(10).sample(np.full((300, 300, 3), 0.5), np.random.default_rng(2)) - 0.5
    channels = np.corrcoef(deviation.reshape(-1, 3).T)
    neighbours = np.corrcoef(deviation[:, :-1].ravel(), deviation[:, 1:].ravel())
    assert np.abs(channels - np.eye(3)).max() < 0.02
    assert abs(neighbours[0, 1]) < 0.02


@pytest.mark.parametrize("model", [Shot(1), Speckle(1.0)])
def test_signal_dependent_noise_leaves_black_black(model):
    assert not model.sample(np.zeros((8, 8, 3)), np.random.default_rng(0)).any()


@pytest.mark.parametrize(
    ("group", "spread_db"),
    [(("gauss50", "shot10", "speckle0.4"), 2.5), (("gauss100", "shot3", "speckle1.0"), 2.5)],
)
def test_matched_severities_have_like_snr(group, spread_db):
    snrs = [_snr_db(parse(name)) for name in group]
    assert max(snrs) - min(snrs) < spread_db


def test_snr_of_gaussian_noise_on_photographs_like_the_paper():
    # The paper has 4.36 and 0.72 dB on ImageNet; this picture is as bright and varied as a photograph.
    assert _snr_db(Gaussian(100)) == pytest.approx(4.4, abs=1.5)
    assert _snr_db(Gaussian(255)) == pytest.approx(0.7, abs=1.0)


def _snr_db(model) -> float:
    clean = np.clip(np.random.default_rng(5).normal(0.45, 0.27, (256, 256, 3)), 0, 1)
    noisy = model.sample(clean, np.random.default_rng(6))
    return 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
