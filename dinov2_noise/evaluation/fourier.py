"""How much accuracy a perturbation of a single spatial frequency costs: the pure part of the Fourier heat map.

With U the real image of unit norm whose spectrum is zero but at the frequencies (i, j) and (-i, -j), every channel c of
an image x in [0, 1] becomes

    clip(x_c + r_c · v · U_ij, 0, 1),

r_c a random sign per image and channel, v the strength. One accuracy per (i, j) makes the map.

Source: D. Yin et al., "A Fourier Perspective on Model Robustness in Computer Vision", 2019, arXiv 1906.08988.
Here U is a cosine without phase, so that (i, j) and (-i, -j) are the same image and only half of the map is
measured; signs belong to an image, not to a frequency, so that frequencies are compared on equal terms; and the map may
be sampled coarsely. Frequencies are in whole cycles per image side; divided by the side they are in cycles per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.errors import ConfigError

Frequency = tuple[int, int]
"""Cycles along the rows' axis (downwards) and along the columns' axis (to the right), over the whole image."""
Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""From images (B, 3, H, W) in [0, 1] to predicted classes (B,) per kind of probe."""


def canonical(frequency: Frequency, side: int) -> Frequency:
    """The one frequency that stands for all with the same real basis image on a square of ``side`` pixels."""
    row, column = (_reduced(cycles, side) for cycles in frequency)
    return max((row, column), (_reduced(-row, side), _reduced(-column, side)))


def _reduced(cycles: int, side: int) -> int:
    """The alias in (-side/2, side/2]."""
    wrapped = cycles % side
    return wrapped if wrapped <= side / 2 else wrapped - side


def basis_image(frequency: Frequency, side: int) -> Tensor:
    """U, (side, side) float64: cos(2 pi (i y + j x) / side), scaled to unit L2 norm."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    cycles = (frequency[0] * y + frequency[1] * x) % side
    wave = torch.cos(2 * math.pi * cycles.double() / side)
    return wave / wave.square().sum().sqrt()


def random_signs(indices: Iterable[int], seed: int, channels: int = 3) -> Tensor:
    """-1 or 1 for every image and channel, (N, channels) float32, from the seed and each image's number alone."""
    signs = [np.random.default_rng([seed, index]).integers(0, 2, channels) * 2 - 1 for index in indices]
    return torch.from_numpy(np.array(signs, dtype=np.float32).reshape(-1, channels))


def perturbed(images: Tensor, frequency: Frequency, norm: float, signs: Tensor) -> Tensor:
    """Square images (B, C, H, H) in [0, 1] with r · norm · U added to each channel, clipped to [0, 1].

    Args:
        norm: L2 norm of what is added to a channel, before clipping; per pixel it is norm / H on average (root mean
            square).
        signs: r, (B, C), see `random_signs`.

    Raises:
        ValueError: the images are not square.
    """
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels: a basis image is square")
    pattern = (norm * basis_image(frequency, images.shape[-1])).to(images)
    return (images + signs.to(images)[..., None, None] * pattern).clamp(0, 1)


@dataclass(frozen=True)
class FourierGrid:
    """The sampled map: ``n`` frequencies per axis, evenly spaced from -limit to limit, zero among them.

    Attributes:
        n: odd, at least 3. side: of the images, in pixels.
        limit_cycles_per_px: highest frequency per axis, above 0 and at most 0.5.
    """

    n: int = 9
    limit_cycles_per_px: float = 0.5
    side: int = 224

    def __post_init__(self) -> None:
        if self.n < 3 or self.n % 2 == 0:
            raise ConfigError(f"--grid {self.n}: an odd number from 3, such as 9, so that frequency 0 is in the middle")
        if not 0 < self.limit_cycles_per_px <= 0.5:
            raise ConfigError(f"--up-to {self.limit_cycles_per_px}: above 0 and at most 0.5 cycles per pixel")
        if len(set(self.axis)) < self.n:
            held = 2 * math.floor(self.limit_cycles_per_px * self.side) + 1
            raise ConfigError(
                f"--grid {self.n} is too fine: up to {self.limit_cycles_per_px} cycles per pixel, images of "
                f"{self.side} pixels hold {held} frequencies per axis"
            )

    @property
    def axis(self) -> list[int]:
        """Cycles per side, ascending and symmetric."""
        half = self.n // 2
        positive = [round(self.limit_cycles_per_px * self.side * step / half) for step in range(1, half + 1)]
        return [*(-cycles for cycles in reversed(positive)), 0, *positive]

    @property
    def axis_cycles_per_px(self) -> list[float]:
        return [cycles / self.side for cycles in self.axis]

    @property
    def frequencies(self) -> list[Frequency]:
        """Those to measure, each once: about half of the map; low ones first."""
        found = {canonical((row, column), self.side) for row in self.axis for column in self.axis}
        return sorted(found, key=lambda frequency: (frequency[0] ** 2 + frequency[1] ** 2, frequency))

    def filled(self, values: Mapping[Frequency, float]) -> list[list[float]]:
        """The whole map, rows and columns as `axis`, from the values at `frequencies`."""
        return [[values[canonical((row, column), self.side)] for column in self.axis] for row in self.axis]


@dataclass(frozen=True)
class Pictures:
    """Images to measure on, all in memory: 150 kB each at 224 pixels.

    Attributes:
        pixels: (N, 3, H, H) uint8. targets: classes (N,). signs: (N, 3).
    """

    pixels: Tensor
    targets: Tensor
    signs: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images (B, 3, H, H) in [0, 1] float32, targets, signs."""
        parts = (self.pixels.split(size), self.targets.split(size), self.signs.split(size))
        for pixels, targets, signs in zip(*parts, strict=True):
            yield pixels.float() / 255, targets, signs


def count_right(
    pictures: Pictures, predict: Predict, frequency: Frequency | None, norm: float, batch_size: int = 128
) -> dict[str, int]:
    """Images told right per kind of probe, perturbed at ``frequency``; None leaves them clean."""
    right: dict[str, int] = {}
    for images, targets, signs in pictures.batches(batch_size):
        shown = images if frequency is None else perturbed(images, frequency, norm, signs)
        for kind, classes in predict(shown).items():
            right[kind] = right.get(kind, 0) + int((classes.cpu() == targets).sum())
    return right


def spread(n_images: int, n_all: int) -> Sequence[int]:
    """Positions of ``n_images`` of ``n_all`` images, evenly spread: lists sorted by class keep their shares."""
    return [int(position) for position in np.linspace(0, n_all - 1, min(n_images, n_all)).round()]
