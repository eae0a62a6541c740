"""Denoisers of the library deepinv (https://deepinv.org) as factories for ``denoise apply --model``.

``pip install 'dinov2-noise[deepinv]'``; then, for example,
``--model dinov2_noise.denoise.deepinv_models:tv --model-option sigma=0.2``.

Here ``sigma`` is the standard deviation of the noise on the [0, 1] scale: 100 / 255 = 0.39 for gauss100.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from dinov2_noise.errors import ConfigError
from dinov2_noise.torchvision_ops import declare_missing_ops


class WithSigma(nn.Module):
    """A denoiser of noise of one level.

    Args:
        denoiser: called with ``(B, 3, H, W)`` in [0, 1] and ``sigma``.
        sigma: of the noise, on the [0, 1] scale.
    """

    def __init__(self, denoiser: nn.Module, sigma: float) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> the same."""
        output: Tensor = self.denoiser(x, self.sigma)
        return output


class TotalVariation(nn.Module):
    """Minimises ``|x - y|² / 2 + threshold * TV(x)``, each image by itself.

    deepinv's solver begins with what it found last, and stops when a whole batch has settled: an image's result would
    depend on those before and beside it.

    Args:
        threshold: the weight of the total variation.
        iterations: at most.
    """

    def __init__(self, threshold: float, iterations: int) -> None:
        super().__init__()
        self.threshold = threshold
        self.iterations = iterations

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> the same."""
        models = _deepinv().models
        solved = [models.TVDenoiser(n_it_max=self.iterations)(image, self.threshold) for image in x.split(1)]
        return torch.cat(solved)


def median(side: int = 5) -> nn.Module:
    """The median of ``side`` x ``side`` pixels: needs no weights and no noise level."""
    module: nn.Module = _deepinv().models.MedianFilter(kernel_size=side)
    return module


def tv(sigma: float, strength: float = 0.75, iterations: int = 100) -> nn.Module:
    """Total variation; needs no weights.

    Source: Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60 (1992).

    Args:
        sigma: of the noise, on the [0, 1] scale.
        strength: the weight of the total variation in units of ``sigma``.
        iterations: at most.
    """
    _deepinv()
    return TotalVariation(strength * sigma, iterations)


def drunet(sigma: float, pretrained: str | None = None) -> nn.Module:
    """The network DRUNet, told the noise level.

    Source: Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior", TPAMI 2021, arXiv 2008.13751.

    Args:
        sigma: of the noise, on the [0, 1] scale.
        pretrained: file of weights on this machine; None: untrained, to try out the way.

    Raises:
        ConfigError: ``pretrained`` is ``download``: a file has a hash that can be recorded, and is there on every node.
    """
    if pretrained in ("download", "download_2d"):
        raise ConfigError("pretrained must be a file on this machine: download the weights once, and give their path")
    return WithSigma(_deepinv().models.DRUNet(pretrained=pretrained), sigma)


def _deepinv() -> Any:
    declare_missing_ops()  # deepinv imports torchvision
    try:
        return importlib.import_module("deepinv")
    except ModuleNotFoundError as cause:
        raise ConfigError("deepinv is not installed: pip install 'dinov2-noise[deepinv]'") from cause
