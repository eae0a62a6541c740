"""What random transforms of torchvision's would do to an image, drawn without doing it.

torchvision's transforms draw and compute in one call. `Draws.draw` asks torch's global generator for the same numbers
in the same order as they would (torchvision 0.19 … 0.28, ``transforms``, not ``transforms.v2``) and returns what is to
be done as a list of plain records. One list may be carried out on several images: that is how a noisy image and its
denoised twin get the same view. `dinov2_noise.augment.chains` makes `Draws` of a chain of transforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

# torchvision gives up after so many crops that do not fit, and takes the largest central one.
CROP_ATTEMPTS = 10


class Action(NamedTuple):
    """One thing to do to an image: ``name`` is that of a function in `dinov2_noise.augment.fast`, ``values`` its
    arguments."""

    name: str
    values: tuple[float, ...] = ()


class Dice:
    """Numbers from torch's global CPU generator, into memory that is allocated once."""

    def __init__(self) -> None:
        self._real, self._whole = torch.empty(1), torch.empty(1, dtype=torch.int64)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return self._real.uniform_(low, high).item()

    def below(self, bound: int) -> int:
        return int(self._whole.random_(0, bound).item())

    def log_uniform(self, log_low: float, log_high: float) -> float:
        return self._real.uniform_(log_low, log_high).exp_().item()


Step = Callable[[Dice, tuple[int, int]], Iterator[Action]]


@dataclass(frozen=True)
class Crop:
    """``RandomResizedCrop``: an area and an aspect ratio, tried until they fit, then a place."""

    height_px: int
    width_px: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    log_ratio: tuple[float, float]

    def __call__(self, dice: Dice, size: tuple[int, int]) -> Iterator[Action]:
        yield Action("crop", (*self._box(dice, *size), self.height_px, self.width_px))

    def _box(self, dice: Dice, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in pixels."""
        for _ in range(CROP_ATTEMPTS):
            area = height * width * dice.uniform(*self.scale)
            aspect = dice.log_uniform(*self.log_ratio)
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return dice.below(height - h + 1), dice.below(width - w + 1), h, w
        w = min(width, round(height * max(self.ratio)))
        h = min(height, round(width / min(self.ratio)))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class Gate:
    """``steps`` with probability ``p``."""

    p: float
    steps: tuple[Step, ...]

    def __call__(self, dice: Dice, size: tuple[int, int]) -> Iterator[Action]:
        if dice.uniform() <= self.p:
            for step in self.steps:
                yield from step(dice, size)


@dataclass(frozen=True)
class Maybe:
    """One action with probability ``p``. At equality not, other than `Gate`: as the transforms compare."""

    p: float
    action: Action

    def __call__(self, dice: Dice, size: tuple[int, int]) -> Iterator[Action]:
        if dice.uniform() < self.p:
            yield self.action


@dataclass(frozen=True)
class Jitter:
    """``ColorJitter``: an order of the four changes, then a factor of each that has a range."""

    ranges: tuple[tuple[str, tuple[float, float] | None], ...]

    def __call__(self, dice: Dice, size: tuple[int, int]) -> Iterator[Action]:
        order = torch.randperm(len(self.ranges)).tolist()
        changes = [None if ends is None else Action(name, (dice.uniform(*ends),)) for name, ends in self.ranges]
        for which in order:
            change = changes[which]
            if change is not None:
                yield change


@dataclass(frozen=True)
class Blur:
    """``GaussianBlur``: a standard deviation in pixels."""

    radius_px: int
    sigma_px: tuple[float, float]

    def __call__(self, dice: Dice, size: tuple[int, int]) -> Iterator[Action]:
        yield Action("blur", (self.radius_px, dice.uniform(*self.sigma_px)))


@dataclass(frozen=True)
class Draws:
    """A chain of random changes, from picture to normalised tensor.

    Attributes:
        steps: in their order.
        mean, std: of the normalisation at the end, (3, 1, 1), for values in [0, 1].
    """

    steps: tuple[Step, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def draw(self, height: int, width: int) -> list[Action]:
        """What to do to an image of this size in pixels; takes its numbers from torch's global generator."""
        dice = Dice()
        return [action for step in self.steps for action in step(dice, (height, width))]
