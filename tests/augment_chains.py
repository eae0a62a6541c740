"""Photographs, and chains of torchvision's transforms like DINOv2's, for the tests of the fast augmentation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.torchvision_ops import declare_missing_ops

declare_missing_ops()

from torchvision import transforms  # noqa: E402 - only now can it be imported

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")


@cache
def photograph(name: str, width: int = 500, height: int = 375) -> Image.Image:
    """One of scikit-image's, of the usual size of those in ImageNet."""
    return Image.fromarray(getattr(skimage.data, name)()).resize((width, height), Image.Resampling.LANCZOS)


def geometry(px: int, scale: tuple[float, float]) -> transforms.Compose:
    crop = transforms.RandomResizedCrop(px, scale=scale, interpolation=transforms.InterpolationMode.BICUBIC)
    return transforms.Compose([crop, transforms.RandomHorizontalFlip(p=0.5)])


def changes(p_blur: float, p_solarize: float) -> transforms.Compose:
    """What DINOv2 does to a crop's pixels, up to the normalised tensor."""
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    blur = transforms.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))
    return transforms.Compose(
        [
            transforms.Compose([transforms.RandomApply([jitter], p=0.8), transforms.RandomGrayscale(p=0.2)]),
            transforms.RandomApply([blur], p=p_blur),
            transforms.RandomSolarize(threshold=128, p=p_solarize),
            transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)]),
        ]
    )


def levels(crop: Any) -> NDArray[np.float64]:
    """Of a normalised crop (3, H, W): its values on the 8-bit scale."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
    values: NDArray[np.float64] = 255 * (crop.double().numpy() * std + mean)
    return values


def planes(image: Image.Image) -> NDArray[np.float32]:
    """(3, H, W), 0 … 255."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32)
