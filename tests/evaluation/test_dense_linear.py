"""The linear classifier: its optimum, its penalty, and the labels of patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dinov2_noise.evaluation.dense_linear import PENALTIES, choose_and_fit, cross_entropy, fit, patch_shares


def _planted(n: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6)) * [1, 2, 5, 0.1, 1, 1] + 3
    labels = (features[:, :3] + noise * rng.normal(size=(n, 3))).argmax(axis=1)
    return torch.from_numpy(features).float(), torch.from_numpy(np.eye(3)[labels]).float()


def test_optimum_is_that_of_a_slow_search_without_gradients() -> None:
    features, shares = _planted(150, 2.0)
    l2 = 0.01
    found = fit(features, shares, l2=l2)
    scaled = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    truth = shares.argmax(dim=1).numpy()

    def loss(flat: np.ndarray) -> float:
        weight, bias = flat[:18].reshape(3, 6), flat[18:]
        odds = np.exp(scaled @ weight.T + bias)
        chosen = odds[np.arange(150), truth] / odds.sum(axis=1)
        return float(-np.log(chosen).mean() + l2 / 2 * (weight**2).sum())

    slow = minimize(loss, np.zeros(21), method="BFGS", options={"gtol": 1e-6})
    weight, bias = slow.x[:18].reshape(3, 6), slow.x[18:]
    assert found.weight.numpy() == pytest.approx(weight, abs=1e-3)
    # a number added to all three does not matter
    assert (found.bias - found.bias.mean()).numpy() == pytest.approx(bias - bias.mean(), abs=1e-3)


def test_gradient_vanishes_at_the_optimum_of_shared_patches() -> None:
    features, _ = _planted(200, 1.0)
    shares = torch.from_numpy(np.random.default_rng(1).dirichlet([0.5, 0.5, 0.5, 0.5], size=200)[:, :3]).float()
    found = fit(features, shares, l2=1e-3)
    weight, bias = (part.clone().requires_grad_() for part in (found.weight, found.bias))
    scores = (features - found.mean) / found.deviation @ weight.T + bias
    loss = -(shares * scores.log_softmax(dim=1)).sum() / shares.sum() + 1e-3 / 2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 2e-5
    # the mean probability of each class is its share of the labelled pixels: the bias has no penalty
    weights = shares.sum(dim=1, keepdim=True) / shares.sum()
    assert (found(features).softmax(dim=1) * weights).sum(dim=0).numpy() == pytest.approx(
        (shares.sum(dim=0) / shares.sum()).numpy(), abs=1e-4
    )


def test_order_and_scale_of_features_do_not_matter() -> None:
    features, shares = _planted(300, 1.0)
    again = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    first = fit(features, shares, l2=1e-3)(features)
    second = fit(features[again] * 10 - 4, shares[again], l2=1e-3)(features * 10 - 4)
    assert second.numpy() == pytest.approx(first.numpy(), abs=5e-3)
    assert torch.equal(fit(features, shares, l2=1e-3).weight, fit(features, shares, l2=1e-3).weight)


def test_a_constant_feature_does_no_harm() -> None:
    features, shares = _planted(100, 1.0)
    features[:, 3] = 7.0
    assert fit(features, shares, l2=1e-3)(features).isfinite().all()


def test_the_penalty_is_chosen_on_held_out_images() -> None:
    rng = np.random.default_rng(0)
    # few patches, many features, of which one tells a little: only a large penalty predicts other images
    features = torch.from_numpy(rng.normal(size=(80, 120))).float()
    told = (features[:, 0] + torch.from_numpy(2 * rng.normal(size=80)).float() > 0).long()
    shares, images = torch.eye(2)[told], torch.arange(80) // 10
    found = choose_and_fit(features, shares, images)
    assert found.l2 in (0.1, 1.0)
    other = torch.from_numpy(rng.normal(size=(500, 120))).float()
    truth = torch.eye(2)[(other[:, 0] + torch.from_numpy(2 * rng.normal(size=500)).float() > 0).long()]
    assert cross_entropy(found, other, truth) < cross_entropy(fit(features, shares, l2=1e-4), other, truth) - 0.5
    # with many patches and a plain rule it is small
    many, labels = _planted(800, 0.0)
    assert choose_and_fit(many, labels, torch.arange(800) // 100).l2 == PENALTIES[-1]
    assert choose_and_fit(many[:3], labels[:3], torch.arange(3)).l2 == PENALTIES[0]
    only_held_out = torch.full((800,), 3)
    assert choose_and_fit(many, labels, only_held_out).l2 == PENALTIES[0]


def test_the_optimum_does_not_depend_on_where_the_search_begins() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(600, 40))).float()
    shares = torch.from_numpy(rng.dirichlet([1.0, 1.0, 1.0], size=600)).float()  # says little: the loss is flat
    cold = fit(features, shares, l2=1e-5)
    warm = fit(features, shares, l2=1e-5, start=fit(features, shares, l2=1e-2))
    assert cold.has_converged
    assert warm.has_converged
    assert warm.weight.numpy() == pytest.approx(cold.weight.numpy(), abs=2e-4)


def test_shares_of_patches_by_hand() -> None:
    mask = np.array(
        [
            [0, 0, 1, 1, 2, 2],
            [0, 1, 1, 1, 2, 255],
            [2, 2, 2, 0, 255, 255],
            [2, 2, 0, 0, 255, 255],
        ]
    )
    found = patch_shares(mask, (2, 3), 3, 255)
    assert found.tolist() == [
        [0.75, 0.25, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 0.75],
        [0.0, 0.0, 1.0],
        [0.75, 0.0, 0.25],
        [0.0, 0.0, 0.0],
    ]


def test_shares_of_a_mask_that_is_no_multiple_of_the_grid() -> None:
    mask = np.random.default_rng(0).integers(0, 4, size=(37, 53))
    found = patch_shares(mask, (5, 7), 4, None)
    slow = np.zeros((5, 7, 4))
    for row in range(37):
        for column in range(53):
            slow[row * 5 // 37, column * 7 // 53, mask[row, column]] += 1
    slow /= slow.sum(axis=2, keepdims=True)
    assert found.reshape(5, 7, 4) == pytest.approx(slow, abs=1e-7)
    # more patches than pixels: those without a pixel have no label
    assert patch_shares(np.zeros((2, 2), int), (4, 4), 1, None).sum() == 4
