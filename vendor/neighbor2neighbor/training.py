"""Training of the denoiser on noisy images alone.

Source: Huang et al., "Neighbor2Neighbor", CVPR 2021, arXiv 2101.02824. Defaults are the published ones.
Differences: the images are taken as they are (their noise is fixed, no clean image is needed); a run may be given as a
number of steps; all randomness is a function of the seed and the step, so that an interrupted run continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neighbor2neighbor.crops import Crops, CropStream, Images
from neighbor2neighbor.loss import NeighborLoss, neighbor_loss, ramp
from neighbor2neighbor.subsampler import draw_pairs, subsample
from neighbor2neighbor.unet import SIDE_MULTIPLE_PX, UNet

CROP_MULTIPLE_PX = 2 * SIDE_MULTIPLE_PX  # the network sees half-size images during training
_PAIR_STREAM, _INIT_STREAM, _WORKER_STREAM = 1, 2, 3
_ROUNDING = 1e-9  # 0.6 * 5 must count as 3 whole epochs


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the result of a training run.

    Attributes:
        epochs: passes over the images; ignored when ``steps`` is given.
        steps: optimizer steps; the same schedule is stretched over them (see :func:`loss_weight_at`).
        batch_size: images per step.
        crop_px: side of the random square crops, a multiple of 64.
        learning_rate: of Adam, at the start.
        gamma: factor on the learning rate at each milestone.
        milestones: fractions of the run after which the learning rate is multiplied by ``gamma``.
        increase_ratio: weight of the regularisation at the end of the run.
        n_feature: channels of the network's encoder.
        residual: see :class:`~neighbor2neighbor.unet.UNet`.
        seed: of the initial weights, the order of images, the crops and the sub-sampler.

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int = 100
    steps: int | None = None
    batch_size: int = 4
    crop_px: int = 256
    learning_rate: float = 3e-4
    gamma: float = 0.5
    milestones: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    increase_ratio: float = 2.0
    n_feature: int = 48
    residual: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_px <= 0 or self.crop_px % CROP_MULTIPLE_PX:
            raise ValueError(f"crop_px must be a multiple of {CROP_MULTIPLE_PX}, got {self.crop_px}")
        lengths = {"epochs": self.epochs, "batch_size": self.batch_size, "n_feature": self.n_feature}
        if self.steps is not None:
            lengths["steps"] = self.steps
        for name, value in lengths.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.learning_rate <= 0 or self.increase_ratio < 0 or self.seed < 0:
            raise ValueError("learning_rate must be positive, increase_ratio and seed must not be negative")

    def steps_per_epoch(self, n_images: int) -> int:
        """Whole batches in ``n_images``, at least one."""
        return max(1, n_images // self.batch_size)

    def total_steps(self, n_images: int) -> int:
        """Optimizer steps of the whole run."""
        return self.steps if self.steps is not None else self.epochs * self.steps_per_epoch(n_images)


def learning_rate_at(step: int, n_images: int, config: TrainingConfig) -> float:
    """Learning rate of a step counted from 0: ``learning_rate * gamma ** (milestones already reached)``."""
    done = step / config.total_steps(n_images)
    return config.learning_rate * config.gamma ** sum(done >= milestone - _ROUNDING for milestone in config.milestones)


def loss_weight_at(step: int, n_images: int, config: TrainingConfig) -> float:
    """Weight of the regularisation in a step counted from 0.

    A run given in epochs keeps the weight within an epoch, as published. A run given in steps has no such epochs: the
    weight rises with every step, ``(step + 1) / steps * increase_ratio``.
    """
    if config.steps is not None:
        return ramp(step + 1, config.steps, config.increase_ratio)
    return ramp(step // config.steps_per_epoch(n_images) + 1, config.epochs, config.increase_ratio)


class StepRecord(NamedTuple):
    """What happened in one optimizer step; ``step`` counts from 1, so the last one equals ``total_steps``."""

    step: int
    total_steps: int
    learning_rate: float
    weight: float
    loss: float
    reconstruction: float
    regularization: float


class Trainer:
    """A training run that can be watched step by step, saved and continued.

    Args:
        images: noisy images, none smaller than ``config.crop_px``.
        config: see :class:`TrainingConfig`.
        device: where to compute.
        num_workers: processes that load images; the result does not depend on it.

    Raises:
        ValueError: there are no images.
    """

    def __init__(
        self, images: Images, config: TrainingConfig, *, device: torch.device | str = "cpu", num_workers: int = 0
    ) -> None:
        if len(images) == 0:
            raise ValueError("no images to train on")
        self.images = images
        self.config = config
        self.device = torch.device(device)
        self.num_workers = num_workers
        self.total_steps = config.total_steps(len(images))
        self.step = 0
        with torch.random.fork_rng(devices=[]):  # constructing layers draws from the global generator
            generator = _generator(config.seed, _INIT_STREAM, 0)
            model = UNet(n_feature=config.n_feature, residual=config.residual, generator=generator)
        # Channels-last convolutions are a quarter faster on a CPU.
        self.model: UNet = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)

    def steps(self) -> Iterator[StepRecord]:
        """Run the remaining steps, yielding a record after each.

        Raises:
            TrainingDivergedError: the loss is not finite; the weights are those before that step.
        """
        self.model.train()
        for batch in self._loader():
            yield self._take_step(batch)

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to continue: step, weights and optimizer state."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict` of a run with the same images and config."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])

    def _loader(self) -> DataLoader[Tensor]:
        config = self.config
        first, last = self.step * config.batch_size, self.total_steps * config.batch_size
        return DataLoader(
            Crops(self.images, config.crop_px, config.seed),
            batch_size=config.batch_size,
            sampler=CropStream(len(self.images), config.seed, first, last),
            num_workers=self.num_workers,
            generator=_generator(config.seed, _WORKER_STREAM, 0),
        )

    def _take_step(self, batch: Tensor) -> StepRecord:
        learning_rate = learning_rate_at(self.step, len(self.images), self.config)
        weight = loss_weight_at(self.step, len(self.images), self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._loss(batch.to(self.device, memory_format=torch.channels_last), weight)
        value, reconstruction, regularization = (float(term.detach()) for term in loss)
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"the loss is {value} at step {self.step + 1} of {self.total_steps} (learning rate {learning_rate:g}): "
                "lower the learning rate, and check that the images hold finite values in [0, 1]"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        self.optimizer.step()
        self.step += 1
        return StepRecord(self.step, self.total_steps, learning_rate, weight, value, reconstruction, regularization)

    def _loss(self, noisy: Tensor, weight: float) -> NeighborLoss:
        pairs = draw_pairs(noisy.shape, _generator(self.config.seed, _PAIR_STREAM, self.step), self.device)
        g1, g2 = subsample(noisy, pairs)
        with torch.no_grad():
            g1_of_denoised, g2_of_denoised = subsample(self.model(noisy), pairs)
        denoised_g1 = self.model(g1.contiguous(memory_format=torch.channels_last))
        return neighbor_loss(denoised_g1, g2, g1_of_denoised, g2_of_denoised, weight)


def train(
    images: Images,
    config: TrainingConfig,
    on_step: Callable[[StepRecord], None] | None = None,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> UNet:
    """Train a denoiser on noisy images; the same seed gives the same weights on the same machine.

    Args:
        images: noisy images ``(3, H, W)``, uint8 or float in [0, 1], none smaller than ``config.crop_px``.
        config: see :class:`TrainingConfig`.
        on_step: called after each optimizer step.
        device: where to compute.
        num_workers: processes that load images.

    Raises:
        ValueError: no images, or one smaller than the crop.
        TrainingDivergedError: the loss is not finite.
    """
    trainer = Trainer(images, config, device=device, num_workers=num_workers)
    for record in trainer.steps():
        if on_step is not None:
            on_step(record)
    trainer.model.eval()
    return trainer.model


def _generator(seed: int, stream: int, position: int) -> torch.Generator:
    """A CPU generator whose seed depends on all three numbers."""
    mixed = np.random.SeedSequence([seed, stream, position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))  # torch takes 63 bits without a sign
