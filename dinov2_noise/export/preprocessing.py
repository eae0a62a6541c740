"""From an image to what the backbone is given: the geometry and the normalisation of DINOv2's evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, parse_range, to_uint8
from dinov2_noise.decoding.values import Stored, scaled, type_ends
from dinov2_noise.errors import ConfigError, ImageError
from dinov2_noise.torchvision_ops import declare_missing_ops

declare_missing_ops()

from torchvision import transforms  # noqa: E402 - only now can it be imported

CROP_PX = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's images, as DINOv2 takes them from timm."""

ImageLike = Image.Image | NDArray[Any]


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to 8/7 of the crop (bicubic), centre crop, values to [0, 1], minus mean, by standard deviation.

    At 224 px these are upstream's ``make_classification_eval_transform`` to the bit: 256 px, then 224.

    Attributes:
        size_px: side of the crop.
        values: which values are black and white, where an image has more than 8 bits; the run's own.
        full_depth: whether images of more than 8 bits keep them, as in a run with ``depth=full``; else they are rounded
            to 8 bits, as that run's were.
    """

    size_px: int = CROP_PX
    values: ValueRange = DTYPE_RANGE
    full_depth: bool = False

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ConfigError(f"size {self.size_px}: it must be at least 1 px")

    @property
    def resize_px(self) -> int:
        """The shorter side before the crop."""
        return self.size_px * 8 // 7

    def __call__(self, image: ImageLike) -> Tensor:
        """(3, size, size) float32, normalised.

        Args:
            image: of Pillow, of any mode; or an array (H, W), (H, W, 1) or (H, W, 3): uint8, other integers or floats,
                whose black and white ``values`` tells.

        Raises:
            ImageError: an array of another shape, or whose values do not fit.
        """
        found: Tensor = self._transform(self._picture(image))
        return found

    def _picture(self, image: ImageLike) -> Image.Image | Tensor:
        """As the transforms take it: 8-bit RGB, or (3, H, W) in [0, 1]."""
        if isinstance(image, Image.Image):
            if image.mode[0] not in "IF" and self.values == DTYPE_RANGE:
                return image.convert("RGB")
            image = np.asarray(image if image.mode[0] in "IF" else image.convert("RGB"))
        pixels = _scaled(image, self.values)
        if pixels.dtype == np.uint8:
            return Image.fromarray(pixels)
        if not self.full_depth:
            return Image.fromarray(to_uint8(pixels))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))

    @cached_property
    def _transform(self) -> transforms.Compose:
        return transforms.Compose(
            [
                transforms.Resize(self.resize_px, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(self.size_px),
                _to_tensor,
                transforms.Normalize(MEAN, STD),
            ]
        )

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "resize_px": self.resize_px,
            "size_px": self.size_px,
            "interpolation": "bicubic",
            "mean": list(MEAN),
            "std": list(STD),
            "range": self.values.name,
            "full_depth": self.full_depth,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Preprocessing:
        """What `plain` was made from.

        Raises:
            KeyError, ConfigError: it is something else.
        """
        return cls(int(plain["size_px"]), parse_range(plain["range"]), bool(plain["full_depth"]))


def _to_tensor(image: Image.Image | Tensor) -> Tensor:
    if isinstance(image, Tensor):
        return image
    found: Tensor = transforms.functional.to_tensor(image)
    return found


def _scaled(array: NDArray[Any], values: ValueRange) -> NDArray[Any]:
    """(H, W, 3): uint8 as it is, all else in [0, 1]."""
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise ImageError("array", f"its shape is {shape}, not (H, W), (H, W, 1) or (H, W, 3)")
    if array.dtype == np.uint8 and values == DTYPE_RANGE:
        return np.repeat(array, 3 // array.shape[2], axis=2)
    if array.dtype.kind not in "buif":
        raise ImageError("array", f"its values are {array.dtype}, not numbers")
    try:
        return scaled(Stored(array, type_ends(array.dtype)), values)
    except ValueError as cause:
        raise ImageError("array", cause) from cause
