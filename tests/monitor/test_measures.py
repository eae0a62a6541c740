"""Probes and label-free measures against slow references, identities and limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dinov2_noise.health import rank_me
from dinov2_noise.monitor.measures import RIDGES, Ridge, agreement, knn_top1, linear_top1, uniformity
from dinov2_noise.monitor.values import Features, described, probe_values, unlabelled_values


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clusters(n_classes: int, per_class: int, n_dims: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    centers = drawn(n_classes, n_dims, seed=100)
    labels = torch.arange(n_classes).repeat(per_class)
    return centers[labels] + spread * drawn(len(labels), n_dims, seed=seed), labels


def test_knn_against_loops() -> None:
    train, train_labels = clusters(4, 6, 8, 1.5, seed=1)
    val, val_labels = clusters(4, 5, 8, 1.5, seed=2)
    right = 0
    for row, label in zip(val.double(), val_labels, strict=True):
        cosines = [float(row @ other / row.norm() / other.norm()) for other in train.double()]
        order = sorted(range(len(cosines)), key=lambda index: -cosines[index])[:5]
        votes = [0.0] * 4
        for index in order:
            votes[int(train_labels[index])] += math.exp(cosines[index] / 0.07)
        right += votes.index(max(votes)) == int(label)
    found = knn_top1(train, train_labels, val, val_labels, k=5)
    assert found == right / len(val)
    assert 0.3 < found < 1, "a case that tells something"


def test_knn_is_that_of_upstreams_probe() -> None:
    from dinov2_noise.upstream.probing.neighbours import Neighbours

    train, train_labels = clusters(5, 8, 6, 2.0, seed=1)
    val, val_labels = clusters(5, 40, 6, 2.0, seed=2)
    probe = Neighbours(torch.nn.functional.normalize(train, dim=1), train_labels, [7])
    expected = float((probe.predict(val)[7] == val_labels).float().mean())
    assert knn_top1(train, train_labels, val, val_labels, k=7) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), [(20, 6), (12, 30)], ids=["tall", "wide"])
def test_ridge_against_normal_equations_and_leaving_out(n: int, d: int) -> None:
    features, targets = drawn(n, d).double(), drawn(n, 3, seed=1).double()
    ridge, penalty = Ridge(features, targets), 0.7
    scaled = (features - features.mean(0)) / features.std(0, correction=0)

    def solved(rows: Tensor) -> tuple[Tensor, Tensor]:
        x, y = scaled[rows], targets[rows]
        middle = x - x.mean(0)
        weights = torch.linalg.solve(
            middle.T @ middle + penalty * torch.eye(d, dtype=torch.float64), middle.T @ (y - y.mean(0))
        )
        return weights, y.mean(0) - x.mean(0) @ weights

    weights, offset = solved(torch.arange(n))
    asked = drawn(5, d, seed=2)
    expected = (asked.double() - features.mean(0)) / features.std(0, correction=0) @ weights + offset
    torch.testing.assert_close(ridge.predict(asked, penalty), expected)
    left_out = ridge.left_out(penalty)
    for row in range(n):
        weights, offset = solved(torch.tensor([other for other in range(n) if other != row]))
        torch.testing.assert_close(left_out[row], scaled[row] @ weights + offset)


def test_linear_probe_takes_the_penalty_that_leaving_out_prefers() -> None:
    train, train_labels = clusters(3, 20, 40, 3.0, seed=1)
    val, val_labels = clusters(3, 50, 40, 3.0, seed=2)
    targets = torch.nn.functional.one_hot(train_labels).double()
    ridge = Ridge(train, targets)
    errors = [float((ridge.left_out(r) - targets).square().mean()) for r in ridge.penalties]
    best = errors.index(min(errors))
    assert 0 < best < len(RIDGES) - 1
    expected = float((ridge.predict(val, ridge.penalties[best]).argmax(1) == val_labels).double().mean())
    assert linear_top1(train, train_labels, val, val_labels) == expected
    assert len(ridge.penalties) == len(RIDGES)
    assert expected > 0.5


def test_linear_probe_of_separable_constant_and_few_features() -> None:
    train, labels = clusters(4, 10, 12, 0.01, seed=1)
    assert linear_top1(train, labels, train, labels) == 1.0
    constant = torch.cat([train, torch.full((len(train), 3), 7.0)], dim=1)
    assert linear_top1(constant, labels, constant, labels) == 1.0
    assert linear_top1(torch.zeros_like(train), labels, torch.zeros_like(train), labels) == 0.25
    assert linear_top1(train, labels, train * 1.0, labels) == linear_top1(train * 8, labels, train * 8, labels)


def test_uniformity_against_a_double_loop_and_its_limits() -> None:
    tokens = drawn(9, 5) * 3
    unit = tokens.double() / tokens.double().norm(dim=1, keepdim=True)
    pairs = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(9) for j in range(9) if i != j]
    assert uniformity(tokens) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-12)
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(-8)
    assert uniformity(drawn(400, 384)) == pytest.approx(-4, abs=0.05), "ever more directions: exp(-2 * 2)"


def test_rank_is_the_entropy_of_singular_values() -> None:
    tokens = drawn(30, 12)
    shares = torch.linalg.svdvals(tokens.double())
    shares = shares / shares.sum() + 1e-7
    expected = float(torch.exp(-(shares * shares.log()).sum()))
    found = unlabelled_values({"noisy": Features(tokens, tokens)}, k=3)
    assert found["rank_me/noisy"] == pytest.approx(expected, rel=1e-6)
    assert found["rank_me/noisy"] == float(rank_me(tokens))
    assert {*found} == {"rank_me/noisy", "uniformity/noisy"}


def test_agreement_by_hand() -> None:
    angles = torch.tensor([0.0, 10, 25, 90, 95, 102]).deg2rad()
    tokens = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Neighbours (k = 2): 0: 1 2, 1: 0 2, 2: 1 0, 3: 4 5, 4: 3 5, 5: 4 3.
    angles = torch.tensor([0.0, 10, 100, 90, 95, 25]).deg2rad()
    twins = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Images 2 and 5 have changed places: 0: 1 5, 1: 0 5, 2: 4 3, 3: 4 2, 4: 3 2 (5 and 5 degrees), 5: 1 0.
    # In common: 1, 1, 0, 1, 1, 0 of 2 each.
    assert agreement(tokens, twins, k=2) == pytest.approx(4 / 12)
    assert agreement(tokens, tokens * 5, k=2) == 1.0
    many = drawn(200, 16)
    assert agreement(many, drawn(200, 16, seed=3), k=20) == pytest.approx(20 / 199, abs=0.02)


def test_values_by_view() -> None:
    train, train_labels = clusters(3, 8, 6, 0.5, seed=1)
    val, val_labels = clusters(3, 4, 6, 0.5, seed=2)
    noise = 4 * drawn(*val.shape, seed=9)
    known = {"clean": Features(train, train), "noisy": Features(train, train)}
    asked = {"clean": Features(val, val), "noisy": Features(val + noise, val + noise), "denoised": Features(val, val)}
    found = probe_values(known, train_labels, asked, val_labels, k=3)
    assert [*found] == ["knn_top1/clean", "linear_top1/clean", "knn_top1/noisy", "linear_top1/noisy"]
    assert found["knn_top1/clean"] == knn_top1(train, train_labels, val, val_labels, k=3)
    assert found["knn_top1/noisy"] < found["knn_top1/clean"]
    both = torch.cat([train, train], 1), train_labels, torch.cat([val, val], 1), val_labels
    assert found["linear_top1/clean"] == linear_top1(*both)


def test_few_images_and_features_that_are_not_finite_are_left_out() -> None:
    one = Features(torch.ones(1, 4), torch.ones(1, 4))
    assert unlabelled_values({"noisy": one, "denoised": one}, k=10) == {}
    tokens = drawn(4, 4)
    few = {"noisy": Features(tokens, tokens), "denoised": Features(tokens, tokens)}
    assert unlabelled_values(few, k=10)["twin_agreement"] == 1.0, "k is lowered to 2"
    bad = Features(torch.full((4, 4), float("nan")), tokens)
    assert {*unlabelled_values({"noisy": few["noisy"], "denoised": bad}, k=2)} == {"rank_me/noisy", "uniformity/noisy"}
    labels = torch.tensor([0, 1, 0, 1])
    assert probe_values({"noisy": bad}, labels, {"noisy": few["noisy"]}, labels, k=1) == {}


def test_values_in_words() -> None:
    values = {"knn_top1/clean": 0.4104, "knn_top1/noisy": 0.352, "rank_me/noisy": 83.123, "uniformity/noisy": -2.0}
    assert described(values | {"twin_agreement": 0.5}) == (
        "knn_top1 clean 41.0% noisy 35.2%, rank_me noisy 83.1, uniformity noisy -2.00, twin_agreement 50.0%"
    )
