"""The Neighbor2Neighbor loss and the ramp of its regularisation weight.

Source: Huang et al., "Neighbor2Neighbor", CVPR 2021, arXiv 2101.02824, "Self-Supervised Training with
Regularization".
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class NeighborLoss(NamedTuple):
    """``total = reconstruction + regularization``; each a scalar, the regularisation already weighted."""

    total: Tensor
    reconstruction: Tensor
    regularization: Tensor


def neighbor_loss(
    denoised_g1: Tensor, g2: Tensor, g1_of_denoised: Tensor, g2_of_denoised: Tensor, weight: float
) -> NeighborLoss:
    """Loss of a denoiser f on two neighbour images of one noisy image y.

    .. math::
        L = mean (f(g_1 y) - g_2 y)^2 + w \\, mean (f(g_1 y) - g_2 y - (g_1 f(y) - g_2 f(y)))^2

    The second term allows for the true difference between neighbouring pixels, estimated on the denoised whole image.
    No gradient flows through f(y): it is detached here, wherever the caller computed it.

    Args:
        denoised_g1: f(g1(y)), ``(B, C, H/2, W/2)``.
        g2: g2(y), same shape.
        g1_of_denoised: g1(f(y)), same shape.
        g2_of_denoised: g2(f(y)), same shape.
        weight: w of the equation, >= 0; see :func:`ramp`.
    """
    difference = denoised_g1 - g2
    expected = (g1_of_denoised - g2_of_denoised).detach()
    reconstruction = difference.square().mean()
    regularization = weight * (difference - expected).square().mean()
    return NeighborLoss(reconstruction + regularization, reconstruction, regularization)


def ramp(epoch_from_1: float, n_epochs: float, increase_ratio: float = 2.0) -> float:
    """Weight of the regularisation in an epoch: ``epoch / n_epochs * increase_ratio``, epochs counted from 1.

    Args:
        epoch_from_1: the current epoch, in (0, n_epochs]; may be fractional.
        n_epochs: length of the run.
        increase_ratio: weight in the last epoch; 2 as published.

    Raises:
        ValueError: the epoch lies outside the run.
    """
    if not 0 < epoch_from_1 <= n_epochs:
        raise ValueError(f"epoch {epoch_from_1} is not within 1 to {n_epochs}")
    return epoch_from_1 / n_epochs * increase_ratio
