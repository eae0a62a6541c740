"""What decides the result of a training run, and the schedules that follow from it.

Source: Huang et al., "Neighbor2Neighbor", CVPR 2021, arXiv 2101.02824. Defaults are the published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from neighbor2neighbor.loss import ramp
from neighbor2neighbor.unet import SIDE_MULTIPLE_PX

CROP_MULTIPLE_PX = 2 * SIDE_MULTIPLE_PX  # the network sees half-size images during training
PRECISIONS = ("fp32", "bf16", "fp16")
_ROUNDING = 1e-9  # 0.6 * 5 must count as 3 whole epochs


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the result of a training run.

    Attributes:
        epochs: passes over the images; ignored when ``steps`` is given.
        steps: optimizer steps; the same schedule is stretched over them (see :func:`loss_weight_at`).
        batch_size: images per step, of all processes together.
        crop_px: side of the random square crops, a multiple of ``64 * stride``.
        learning_rate: of Adam, at the start.
        gamma: factor on the learning rate at each milestone.
        milestones: fractions of the run after which the learning rate is multiplied by ``gamma``.
        increase_ratio: weight of the regularisation at the end of the run.
        n_feature: channels of the network's encoder.
        residual: see :class:`~neighbor2neighbor.unet.UNet`.
        seed: of the initial weights, the order of images, the crops and the sub-sampler.
        stride: train on every ``stride``-th pixel, for correlated noise; see :mod:`neighbor2neighbor.phases`.
        ema: decay of a running mean of the weights, which is then the result; see
            :class:`~neighbor2neighbor.ema.WeightMean`. None: the result is the last weights.
        precision: of the network's forward and backward pass: ``fp32``, or ``bf16`` or ``fp16`` by autocast; weights,
            loss and optimizer are always fp32.

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
    stride: int = 1
    ema: float | None = None
    precision: str = "fp32"

    def __post_init__(self) -> None:
        lengths = {name: getattr(self, name) for name in ("epochs", "batch_size", "n_feature", "stride")}
        if self.steps is not None:
            lengths["steps"] = self.steps
        for name, value in lengths.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        multiple = self.crop_multiple_px
        if self.crop_px <= 0 or self.crop_px % multiple:
            why = "" if self.stride == 1 else f" ({CROP_MULTIPLE_PX} times the stride {self.stride})"
            raise ValueError(f"crop_px must be a multiple of {multiple}{why}, got {self.crop_px}")
        self._check_schedule()
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must lie between 0 and 1, such as 0.999, got {self.ema}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown: choose one of {', '.join(PRECISIONS)}")

    def _check_schedule(self) -> None:
        for name in ("learning_rate", "gamma"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.increase_ratio < math.inf or self.seed < 0:
            raise ValueError(
                "increase_ratio and seed must not be negative, and increase_ratio finite, "
                f"got {self.increase_ratio} and {self.seed}"
            )
        if not all(0 <= milestone <= 1 for milestone in self.milestones):
            raise ValueError(f"milestones are fractions of the run, 0 to 1, got {self.milestones}")

    @property
    def crop_multiple_px(self) -> int:
        """Sides of crops are multiples of this; smaller images cannot be used."""
        return CROP_MULTIPLE_PX * self.stride

    def share(self, world_size: int) -> int:
        """Images of each step for one of ``world_size`` processes.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        if self.batch_size % world_size:
            raise ValueError(
                f"a batch of {self.batch_size} images cannot be shared out evenly among {world_size} processes: choose "
                f"a batch_size that is a multiple of {world_size}, or fewer processes"
            )
        return self.batch_size // world_size

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
