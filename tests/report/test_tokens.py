"""Principal components do not depend on the basis, show planted regions, and neighbours equal those of plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dinov2_noise.report.tokens import colour_maps, nearest, principal_colours


def _tokens(count: int = 200, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.gamma(1.0, 1.0, (count, width)) * np.linspace(3, 0.5, width)


def test_colours_do_not_depend_on_rotation_shift_and_scale_of_the_tokens() -> None:
    tokens = _tokens()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))
    expected = principal_colours(tokens)
    for other in (tokens @ rotation, -tokens @ rotation, 7 * tokens + 3):
        # Also of mirrored tokens: each component is turned to one side.
        assert np.allclose(principal_colours(other), expected, atol=1e-8)


def test_components_are_the_eigenvectors_of_the_covariance() -> None:
    tokens = _tokens()
    values, vectors = np.linalg.eigh(np.cov(tokens.T))
    colours = principal_colours(tokens)
    for number in range(3):
        projection = (tokens - tokens.mean(axis=0)) @ vectors[:, np.argsort(values)[-1 - number]]
        inside = (colours[:, number] > 0) & (colours[:, number] < 1)
        assert abs(np.corrcoef(projection[inside], colours[inside, number])[0, 1]) == pytest.approx(1, abs=1e-9)
        assert 0.94 < inside.mean() < 0.97  # 2 % at each end are cut


def test_each_component_is_skewed_to_the_right() -> None:
    tokens = np.zeros((100, 4))
    tokens[:3, 0] = -10  # few far away in the negative: turned
    colours = principal_colours(tokens + np.random.default_rng(0).normal(0, 0.01, tokens.shape))
    assert (colours[:3, 0] > 0.999).all()
    assert colours[3:, 0].mean() < 0.1


def test_two_planted_regions_get_two_colours_in_clean_and_noisy_alike() -> None:
    rng = np.random.default_rng(0)
    region = np.zeros((14, 14), bool)
    region[:, 5:] = True
    one, other = rng.normal(size=(2, 32))
    clean = np.where(region[..., None], one, other)
    maps = colour_maps(np.stack([clean, clean + rng.normal(0, 0.05, clean.shape)]))
    assert maps.shape == (2, 14, 14, 3)
    for shown in maps.astype(float):
        inside, outside = shown[region][:, 0], shown[~region][:, 0]
        assert abs(inside.mean() - outside.mean()) > 200
        assert max(inside.std(), outside.std()) < 10
    assert abs(maps[0, ..., 0].astype(float) - maps[1, ..., 0]).mean() < 10


def test_tokens_without_spread_are_grey_and_bad_ones_refused() -> None:
    assert (principal_colours(np.ones((5, 4))) == 0.5).all()
    assert (principal_colours(np.array([[0.0], [1.0], [3.0]]))[:, 1:] == 0.5).all()
    with pytest.raises(ValueError, match="not finite"):
        principal_colours(np.full((3, 2), math.nan))
    with pytest.raises(ValueError, match="tokens"):
        principal_colours(np.zeros((0, 3)))


def test_neighbours_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(30, 6))
    queries, own = candidates[[3, 17, 29]] * 5, np.array([3, 17, 29])
    found, cosines = nearest(queries, candidates, 4, own)
    for row, (query, index) in enumerate(zip(queries, own, strict=True)):
        scored = []
        for number, other in enumerate(candidates):
            if number != index:
                dot = sum(a * b for a, b in zip(query, other, strict=True))
                lengths = math.sqrt(sum(a * a for a in query)) * math.sqrt(sum(b * b for b in other))
                scored.append((dot / lengths, number))
        expected = sorted(scored, key=lambda pair: -pair[0])[:4]
        assert list(found[row]) == [number for _, number in expected]
        assert list(cosines[row]) == pytest.approx([cosine for cosine, _ in expected], abs=1e-12)


def test_a_query_from_elsewhere_may_be_its_own_twin() -> None:
    candidates = np.eye(3)
    found, cosines = nearest(np.array([[0.0, 2.0, 0.0]]), candidates, 3)
    assert found[0, 0] == 1
    assert cosines[0, 0] == pytest.approx(1)
    with pytest.raises(ValueError, match="3 neighbours of 2"):
        nearest(candidates[:1], candidates, 3, np.array([0]))
