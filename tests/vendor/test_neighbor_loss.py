"""The loss against a slow independent computation, and the ramp of its weight."""

from __future__ import annotations

import pytest
import torch

from neighbor2neighbor import UNet, draw_pairs, neighbor_loss, ramp, subsample

WEIGHT = 1.3


def tensors(seed: int, *, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_value_equals_a_sum_over_pixels() -> None:
    denoised_g1, g2, g1_of_denoised, g2_of_denoised = tensors(0, count=4)
    reconstruction = regularization = 0.0
    for f, target, a, b in zip(
        denoised_g1.flatten().tolist(),
        g2.flatten().tolist(),
        g1_of_denoised.flatten().tolist(),
        g2_of_denoised.flatten().tolist(),
        strict=True,
    ):
        reconstruction += (f - target) ** 2
        regularization += (f - target - (a - b)) ** 2
    n = denoised_g1.numel()
    loss = neighbor_loss(denoised_g1, g2, g1_of_denoised, g2_of_denoised, WEIGHT)
    assert float(loss.reconstruction) == pytest.approx(reconstruction / n, rel=1e-12)
    assert float(loss.regularization) == pytest.approx(WEIGHT * regularization / n, rel=1e-12)
    assert float(loss.total) == pytest.approx((reconstruction + WEIGHT * regularization) / n, rel=1e-12)


def test_gradient_is_the_derivative_and_does_not_reach_the_denoised_image() -> None:
    denoised_g1, g2, g1_of_denoised, g2_of_denoised = (tensor.requires_grad_() for tensor in tensors(1, count=4))
    neighbor_loss(denoised_g1, g2, g1_of_denoised, g2_of_denoised, WEIGHT).total.backward()
    with torch.no_grad():
        difference = denoised_g1 - g2
        expected = 2 * (difference + WEIGHT * (difference - (g1_of_denoised - g2_of_denoised))) / difference.numel()
    torch.testing.assert_close(denoised_g1.grad, expected)
    assert g1_of_denoised.grad is None
    assert g2_of_denoised.grad is None


def test_network_gradient_equals_that_with_the_denoised_image_as_a_constant() -> None:
    """With and without torch.no_grad around f(y), and with f(y) as plain numbers, the gradient is the same."""
    generator = torch.Generator().manual_seed(3)
    model = UNet(n_feature=4, generator=generator).double()
    noisy = torch.rand(1, 3, 64, 64, generator=generator, dtype=torch.float64)
    pairs = draw_pairs(noisy.shape, generator)
    g1, g2 = subsample(noisy, pairs)

    def gradient(denoised: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        neighbor_loss(model(g1), g2, *subsample(denoised, pairs), WEIGHT).total.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    constant = torch.tensor(model(noisy).tolist(), dtype=torch.float64)
    expected = gradient(constant)
    torch.testing.assert_close(gradient(model(noisy)), expected)
    with torch.no_grad():
        denoised = model(noisy)
    torch.testing.assert_close(gradient(denoised), expected)
    assert float(expected.abs().sum()) > 0


def test_weight_zero_is_noise2noise() -> None:
    denoised_g1, g2, a, b = tensors(2, count=4)
    loss = neighbor_loss(denoised_g1, g2, a, b, 0.0)
    assert float(loss.total) == float(torch.nn.functional.mse_loss(denoised_g1, g2))


def test_ramp_is_linear_from_the_first_epoch() -> None:
    assert [ramp(epoch, 4) for epoch in (1, 2, 3, 4)] == [0.5, 1.0, 1.5, 2.0]
    assert ramp(50, 100, increase_ratio=16.0) == 8.0
    for epoch in (0, 101):
        with pytest.raises(ValueError, match="not within"):
            ramp(epoch, 100)
