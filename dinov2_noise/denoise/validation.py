"""How well a denoiser does on images of which clean versions exist; the only place that opens clean images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dinov2_noise.data.pairs import find_twin
from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, image_size
from dinov2_noise.denoise.images import read_rgb
from dinov2_noise.errors import PairError
from dinov2_noise.files import list_images
from neighbor2neighbor import denoise_image, to_uint8

Denoise = Callable[[Tensor], Tensor]
"""A noisy image ``(3, H, W)``, uint8, to the denoised one of the same shape and type."""

_SMALLEST_MSE = 1e-3  # of equal images, whose PSNR would be infinite: one level off in a thousand values


class Score(NamedTuple):
    """PSNR in dB, means over the images: of the denoised and of the noisy ones."""

    psnr_db: float
    noisy_psnr_db: float


class Validation:
    """Noisy images with their clean twins: the same relative path, whatever the suffix.

    Args:
        noisy, clean: folders.
        values: which stored values are black and white, in both.

    Raises:
        MissingFolderError: a folder does not exist or holds no images.
        PairError: a noisy image has no clean twin, or one of another size; five are named.
        ImageError: a header cannot be read.
    """

    def __init__(self, noisy: Path, clean: Path, values: ValueRange = DTYPE_RANGE) -> None:
        self.noisy, self.clean, self.values = noisy, clean, values
        self.names = list_images(noisy, what="validation folder")
        list_images(clean, what="folder of clean validation images")
        twins = [find_twin(clean, name) for name in self.names]
        missing = [name for name, twin in zip(self.names, twins, strict=True) if twin is None]
        if missing:
            shown = "".join(f"\n  {name}" for name in missing[:5])
            raise PairError(
                f"{len(missing)} of {len(self.names)} validation images in {noisy} have no clean twin (the same path, "
                f"any image suffix) in {clean}, such as{shown}"
            )
        self.twins = [twin for twin in twins if twin is not None]
        self._require_equal_sizes()  # now rather than after hours of training

    def __len__(self) -> int:
        return len(self.names)

    def _require_equal_sizes(self) -> None:
        rows = []
        for index in range(len(self)):
            paths = self._paths(index)
            noisy, clean = map(image_size, paths)
            if noisy != clean:
                rows.append(f"\n  {paths[0]} is {noisy[0]}x{noisy[1]} px, {paths[1]} is {clean[0]}x{clean[1]} px")
        if rows:
            raise PairError(f"sizes of {len(rows)} of {len(self)} validation pairs differ:{''.join(rows[:5])}")

    def _paths(self, index: int) -> tuple[Path, Path]:
        return self.noisy / self.names[index], self.clean / self.twins[index]

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Noisy and clean image, uint8 ``(3, H, W)``.

        Raises:
            ImageError: one cannot be read.
        """
        noisy, clean = (read_rgb(path, self.values) for path in self._paths(index))
        return noisy, clean

    def score(self, denoise: Denoise) -> Score:
        """PSNR of 8-bit images, as `denoise apply` writes them."""
        total = [0.0, 0.0]
        for index in range(len(self)):
            noisy, clean = self.pair(index)
            total[0] += psnr_db(denoise(noisy), clean)
            total[1] += psnr_db(noisy, clean)
        return Score(total[0] / len(self), total[1] / len(self))


def psnr_db(image: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 images of one shape, peak 255."""
    mse = float(((image.to(torch.float64) - clean.to(torch.float64)) ** 2).mean())
    return 10 * math.log10(255**2 / max(mse, _SMALLEST_MSE))


def denoising(model: nn.Module, device: torch.device) -> Denoise:
    """``model`` as a function of 8-bit images."""

    def denoise(image: Tensor) -> Tensor:
        return to_uint8(denoise_image(model, image.to(device).float() / 255)).cpu()

    return denoise
