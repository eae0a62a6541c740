"""Signs of collapse against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dinov2_noise.health.signs import (
    Signs,
    anchor_gap,
    distinct_share,
    feature_std,
    prototype_entropy,
    rank_me,
)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_dims", [16, 256])
def test_std_of_even_directions(n_dims: int) -> None:
    assert feature_std(gaussian(4096, n_dims)).item() == pytest.approx(1 / math.sqrt(n_dims), rel=0.02)


def test_std_of_a_known_pair() -> None:
    # (1, 0) and (0, 1): each dimension has mean 1/2 and deviation 1/2.
    assert feature_std(3 * torch.eye(2)).item() == pytest.approx(0.5)


def test_equal_tokens() -> None:
    tokens = gaussian(1, 64).repeat(10, 1)
    assert feature_std(tokens).item() == pytest.approx(0, abs=1e-7)
    assert rank_me(tokens).item() == pytest.approx(1, abs=1e-3)
    assert distinct_share(tokens).item() == 0


@pytest.mark.parametrize(("n", "n_dims"), [(5, 20), (20, 20), (40, 20)])
def test_rank_of_orthonormal_rows_or_columns(n: int, n_dims: int) -> None:
    basis, _ = torch.linalg.qr(gaussian(max(n, n_dims), min(n, n_dims)))
    matrix = basis if n >= n_dims else basis.T
    assert matrix.shape == (n, n_dims)
    assert rank_me(matrix).item() == pytest.approx(min(n, n_dims), rel=1e-4)


def test_rank_against_a_singular_value_decomposition() -> None:
    tokens = gaussian(50, 30) @ torch.diag(torch.linspace(0.01, 3, 30))
    singular = torch.linalg.svdvals(tokens.double())
    shares = (singular / singular.sum()).tolist()
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert rank_me(tokens).item() == pytest.approx(expected, rel=1e-4)


def test_rank_ignores_rotation_and_scale() -> None:
    tokens = gaussian(30, 12)
    rotation, _ = torch.linalg.qr(gaussian(12, 12, seed=1))
    assert rank_me(7 * tokens @ rotation).item() == pytest.approx(rank_me(tokens).item(), rel=1e-4)


def test_distinct_share_counts_images_with_a_token_of_their_own() -> None:
    tokens = gaussian(6, 32)
    tokens[4] = 5 * tokens[1]  # the same direction
    assert distinct_share(tokens).item() == pytest.approx(4 / 6)


def test_distinct_share_at_its_tolerance() -> None:
    for angle, expected in ((0.9e-3, 0.0), (1.1e-3, 1.0)):
        pair = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
        assert distinct_share(pair).item() == expected


def test_half_precision_rounding_makes_no_token_distinct() -> None:
    token = gaussian(1, 384)
    copies = torch.cat([token, token * 1.37]).half()
    assert distinct_share(copies).item() == 0


def test_entropy_of_uniform_one_hot_and_mixed_assignments() -> None:
    n_prototypes = 8
    uniform = torch.full((5, n_prototypes), 1 / n_prototypes)
    found = prototype_entropy(uniform)
    assert found.nats.item() == pytest.approx(math.log(n_prototypes))
    assert found.share.item() == pytest.approx(1)
    assert found.per_sample_share.item() == pytest.approx(1)

    one = prototype_entropy(torch.eye(n_prototypes)[:1].repeat(5, 1))
    assert [value.item() for value in one] == pytest.approx([0, 0, 0])

    spread = prototype_entropy(torch.eye(n_prototypes)[:4])  # four images, four prototypes, no doubt
    assert spread.nats.item() == pytest.approx(math.log(4))
    assert spread.per_sample_share.item() == 0


def test_anchor_gap() -> None:
    tokens = gaussian(9, 16)
    assert anchor_gap(tokens, 4 * tokens).item() == pytest.approx(0, abs=1e-6)
    assert anchor_gap(tokens, -tokens).item() == pytest.approx(2, abs=1e-6)
    assert anchor_gap(torch.eye(4)[:2], torch.eye(4)[2:]).item() == pytest.approx(1)


def test_meters_leave_out_what_was_not_measured() -> None:
    signs = Signs(0.1, 5.0, 1.0, 0.6, 0.3, None, n_tokens=8, n_dims=192, n_prototypes=32)
    assert "anchor_gap" not in signs.meters()
    assert signs.meters()["rankme"] == 5.0
    assert len(signs.meters()) == 5
