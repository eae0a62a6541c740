"""The toy's network and its loss.

Source: "Ditch the Denoiser", arXiv 2505.12191, toy experiment.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE_PX = 28
HIDDEN, FEATURES = 128, 32
COVARIANCE_WEIGHT = 0.5


class Encoder(nn.Module):
    """784-128-32 with a ReLU between and no biases, ``(B, 28, 28)`` or ``(B, 784)`` to ``(B, 32)``.

    Args:
        generator: of the initial weights, which are distributed as those of torch's `Linear`.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = _linear(SIDE_PX**2, HIDDEN, generator, bias=False)
        self.output = _linear(HIDDEN, FEATURES, generator, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.output(F.relu(self.hidden(images.flatten(1))))
        return features


def linear_classifier(n_classes: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer from the features to classes, with biases."""
    return _linear(FEATURES, n_classes, generator, bias=True)


def _linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool) -> nn.Linear:
    """torch's `Linear` and its initial distribution, U(-1/sqrt(inputs), 1/sqrt(inputs)), without the global generator.

    That bound is what `kaiming_uniform_` with ``a = sqrt(5)`` comes to.
    """
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    assert isinstance(layer, nn.Linear)
    return layer


def invariance(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean over the batch of ``||z1 - z2||^2``; both ``(B, D)``."""
    return (z1 - z2).square().sum(dim=1).mean()


def covariance_distance(z: Tensor) -> Tensor:
    """``||Cov(z) - I||_F^2`` of features ``(N, D)``; Cov is the biased estimate, ``z_c^T z_c / N``."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / len(z)
    return (covariance - torch.eye(z.shape[1], dtype=z.dtype, device=z.device)).square().sum()


def toy_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """``invariance + 0.5 ||Cov - I||_F^2``, with one covariance of both views' features together.

    Args:
        z1, z2: features of two views of each digit, ``(B, D)``.
    """
    return invariance(z1, z2) + COVARIANCE_WEIGHT * covariance_distance(torch.cat([z1, z2]))
