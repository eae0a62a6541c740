"""A running mean of the weights, which is often a better denoiser than the last weights themselves."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class WeightMean(Generic[NetworkT]):
    """Exponential mean of a network's weights, ``mean <- d * mean + (1 - d) * weights`` after each step.

    After step t (counted from 1) ``d = min(decay, (1 + t) / (10 + t))``: the mean of a young run reaches back over
    about a tenth of it, and the initial weights leave no trace (after 10 steps less than a ten-thousandth). Buffers are
    not averaged.

    Args:
        network: where the mean starts; copied.
        decay: in (0, 1); the mean reaches back over about ``1 / (1 - decay)`` steps.

    Attributes:
        network: holds the mean.
    """

    def __init__(self, network: NetworkT, decay: float) -> None:
        self.network = deepcopy(network)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step number ``step``, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)
        average(list(self.network.parameters()), list(network.parameters()), None)
