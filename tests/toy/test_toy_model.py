"""The toy's loss against a slow reference with gradients, its network, and what decides its numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dinov2_noise.toy.model import Encoder, covariance_distance, invariance, linear_classifier, toy_loss
from dinov2_noise.toy.seeding import Stream, generator


def _slow_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """The published formula, one entry at a time."""
    batch, width = z1.shape
    total = torch.zeros((), dtype=z1.dtype)
    for a, b in zip(z1, z2, strict=True):
        for x, y in zip(a, b, strict=True):
            total = total + (x - y) ** 2 / batch
    rows = [*z1, *z2]
    means = [sum(row[i] for row in rows) / len(rows) for i in range(width)]
    for i in range(width):
        for j in range(width):
            covariance = sum((row[i] - means[i]) * (row[j] - means[j]) for row in rows) / len(rows)
            total = total + 0.5 * (covariance - (1.0 if i == j else 0.0)) ** 2
    return total


def test_loss_and_gradients_equal_a_slow_reference() -> None:
    source = generator(1, Stream.INIT)
    ours = [torch.randn(7, 4, generator=source, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    theirs = [z.detach().clone().requires_grad_() for z in ours]
    fast, slow = toy_loss(*ours), _slow_loss(*theirs)
    fast.backward()
    slow.backward()
    torch.testing.assert_close(fast, slow)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_covariance_is_the_biased_one_and_ignores_the_mean() -> None:
    z = torch.randn(50, 3, generator=generator(2, Stream.INIT), dtype=torch.float64)
    expected = (torch.cov(z.T, correction=0) - torch.eye(3)).square().sum()
    torch.testing.assert_close(covariance_distance(z), expected)
    torch.testing.assert_close(covariance_distance(z + 5.0), expected)


def test_limits_of_the_loss() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # its covariance is I
    assert toy_loss(signs, signs).item() == 0
    collapsed = torch.full((4, 2), 3.0)
    assert toy_loss(collapsed, collapsed).item() == 0.5 * 2  # half of ||I||^2
    assert invariance(signs, -signs).item() == 8


def test_the_network_has_784_128_32_units_and_no_biases() -> None:
    encoder = Encoder(generator(0, Stream.INIT))
    assert {name: tuple(value.shape) for name, value in encoder.named_parameters()} == {
        "hidden.weight": (128, 784),
        "output.weight": (32, 128),
    }
    images = torch.rand(3, 28, 28, generator=generator(0, Stream.ORDER))
    hidden = (images.flatten(1) @ encoder.hidden.weight.T).clamp(min=0)
    torch.testing.assert_close(encoder(images), hidden @ encoder.output.weight.T)


def test_initial_weights_are_distributed_as_those_of_torch_and_leave_its_generator_alone() -> None:
    before = torch.get_rng_state()
    weights = Encoder(generator(0, Stream.INIT)).hidden.weight
    assert torch.equal(torch.get_rng_state(), before)
    assert weights.abs().max().item() == pytest.approx(1 / 28, rel=1e-3)
    assert weights.std().item() == pytest.approx(1 / 28 / math.sqrt(3), rel=1e-2)
    assert torch.equal(weights, Encoder(generator(0, Stream.INIT)).hidden.weight)
    assert linear_classifier(10, generator(0, Stream.PROBE_INIT)).bias.shape == (10,)


def test_generators_differ_by_seed_stream_and_part() -> None:
    keys = [(seed, stream, part) for seed in range(3) for stream in Stream for part in range(2)]
    assert len({generator(*key).initial_seed() for key in keys}) == len(keys)
