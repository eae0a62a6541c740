"""Names of all noises: parsed, written again, listed; what is refused and how."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from rich.console import Console

from dinov2_noise.errors import NoiseNameError
from dinov2_noise.noise import FAMILIES, LevelRange, parse, parse_pixel_noise
from dinov2_noise.noise.correlated import Correlated
from dinov2_noise.noise.listing import print_noises
from dinov2_noise.noise.physics import Gamma, Rician, SaltPepper, Sensor


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("poissongauss30_5", Sensor(30, 5)),
        ("poissongauss0.5_1e-07", Sensor(0.5, 1e-7)),
        ("rician25", Rician(25)),
        ("saltpepper0.05", SaltPepper(0.05)),
        ("gamma1", Gamma(1)),
        ("gamma2.5", Gamma(2.5)),
        ("correlated25_1.5", Correlated(25, 1.5)),
        ("gauss5-50", LevelRange("gauss", 5, 50)),
        ("speckle0.4-1.0", LevelRange("speckle", 0.4, 1)),
        ("gauss1e-07-1e+20", LevelRange("gauss", 1e-7, 1e20)),
        ("poissongauss10-100_5", LevelRange("poissongauss", 10, 100, (5,))),
        ("correlated5-50_2", LevelRange("correlated", 5, 50, (2,))),
    ],
)
def test_name_and_parse_are_inverse(name, model):
    assert parse(name) == model
    assert model.name == name
    assert hash(parse(name)) == hash(model)
    assert pickle.loads(pickle.dumps(model)) == model
    assert not set(name) & set(":,/ ")  # such names stand in dataset strings and file names


def test_every_example_is_a_name():
    for name, family in FAMILIES.items():
        for example in family.examples:
            assert parse(example).name == example
            assert example.startswith(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gauss0", "above 0"),
        ("gauss1e999", "above 0"),
        ("saltpepper1.5", "above 0 and below 1"),
        ("saltpepper1", "above 0 and below 1"),
        ("saltpepper0", "above 0 and below 1"),
        ("gamma0", "number of looks must be above 0"),
        ("rician0", "above 0"),
        ("poissongauss0_5", "photons must be above 0"),
        ("poissongauss30_0", "read noise must be above 0"),
        ("correlated25_0", "radius must be above 0 and below 100"),
        ("correlated25_500", "radius must be above 0 and below 100"),
        ("gauss50-5", "write gauss5-50"),
        ("poissongauss50-5_3", "write poissongauss5-50_3"),
        ("gauss0-5", "above 0"),
        ("saltpepper0.5-2", "below 1"),
        ("poissongauss30", "2 numbers: poissongauss<l>_<s>, such as poissongauss100_5"),
        ("gauss50_5", "takes one number: gauss<s>, such as gauss50"),
        ("correlated25_1_2", "has 3 numbers"),
        ("rician-5", "unknown noise"),
        ("poisson30", "gamma<L>"),
    ],
)
def test_levels_that_make_no_noise_are_refused(name, message):
    with pytest.raises(NoiseNameError) as caught:
        parse(name)
    assert message in str(caught.value)


def test_a_range_has_no_distribution_of_its_own():
    assert parse_pixel_noise("correlated25_1") == Correlated(25, 1)
    with pytest.raises(NoiseNameError, match=r"another level in each image.*such as gauss5,"):
        parse_pixel_noise("gauss5-50")


def test_the_list_tells_all_of_every_noise():
    console = Console(file=io.StringIO(), width=160)
    print_noises(console)
    text = console.file.getvalue()
    words = " ".join(text.replace("│", " ").split())
    for name, family in FAMILIES.items():
        assert family.signature(name) in words
        assert family.formula in words
        for example in family.examples:
            assert (example + "*" in words) == family.is_published
        for _, meaning in family.parameters:
            assert meaning.split()[0] in words


@pytest.mark.parametrize("name", FAMILIES)
def test_every_model_clips_and_leaves_its_input(name):
    for example in FAMILIES[name].examples:
        image = np.linspace(0, 1, 300).reshape(10, 10, 3)
        made = parse(example).sample(image, np.random.default_rng(0))
        assert made.shape == image.shape
        assert made.dtype == np.float64
        assert 0 <= made.min() < made.max() <= 1
        np.testing.assert_array_equal(image, np.linspace(0, 1, 300).reshape(10, 10, 3))
