"""From a chain of torchvision's transforms to `Draws`: read once, so that nothing is looked up for every image.

Ranges and probabilities are those of the transforms read, whatever they are; a transform not known here is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dinov2_noise.augment.draws import Action, Blur, Crop, Draws, Gate, Jitter, Maybe, Step
from dinov2_noise.errors import PluginError
from dinov2_noise.torchvision_ops import declare_missing_ops

declare_missing_ops()

from torchvision import transforms  # noqa: E402 - only now can it be imported


def read(*chain: Any) -> Draws:
    """The transforms ``chain``, one after the other.

    Raises:
        PluginError: a transform, or a setting of one, that is not known here.
    """
    flat = _flat(chain)
    if len(flat) < 2 or not isinstance(flat[-2], transforms.ToTensor):
        raise PluginError(_cannot("does not end with ToTensor and Normalize"))
    last = flat[-1]
    if not isinstance(last, transforms.Normalize):
        raise PluginError(_cannot(f"ends with {last}, not with Normalize"))
    mean, std = (np.asarray(values, np.float32).reshape(3, 1, 1) for values in (last.mean, last.std))
    return Draws(tuple(_read(transform) for transform in flat[:-2]), mean, std)


def _flat(chain: Sequence[Any]) -> list[Any]:
    """Without nested ``Compose``."""
    return [
        leaf
        for transform in chain
        for leaf in (_flat(transform.transforms) if isinstance(transform, transforms.Compose) else [transform])
    ]


def _read(transform: Any) -> Step:
    for kind, reader in _READERS.items():
        if isinstance(transform, kind):
            return reader(transform)
    raise PluginError(_cannot(f"holds {transform}"))


def _read_crop(crop: Any) -> Step:
    if crop.interpolation is not transforms.InterpolationMode.BICUBIC:
        raise PluginError(_cannot(f"resizes by {crop.interpolation.value}, not bicubic"))
    height, width = crop.size
    low, high = torch.log(torch.tensor(crop.ratio)).tolist()
    return Crop(height, width, tuple(crop.scale), tuple(crop.ratio), (low, high))


def _read_jitter(jitter: Any) -> Step:
    names = ("brightness", "contrast", "saturation", "hue")
    ranges = [(name, getattr(jitter, name)) for name in names]
    return Jitter(tuple((name, None if ends is None else (ends[0], ends[1])) for name, ends in ranges))


def _read_blur(blur: Any) -> Step:
    width, height = blur.kernel_size
    if width != height:
        raise PluginError(_cannot(f"blurs with a kernel of {width}x{height}, not square"))
    return Blur(width // 2, (blur.sigma[0], blur.sigma[1]))


def _single(p: float) -> float:
    """A probability as torch compares it with a float32 draw."""
    return float(np.float32(p))


_READERS: dict[type, Callable[[Any], Step]] = {
    transforms.RandomResizedCrop: _read_crop,
    transforms.RandomHorizontalFlip: lambda flip: Maybe(_single(flip.p), Action("flip")),
    transforms.RandomApply: lambda gate: Gate(_single(gate.p), tuple(map(_read, _flat(gate.transforms)))),
    transforms.ColorJitter: _read_jitter,
    transforms.RandomGrayscale: lambda gray: Maybe(_single(gray.p), Action("grayscale")),
    transforms.GaussianBlur: _read_blur,
    transforms.RandomSolarize: lambda solarize: Maybe(solarize.p, Action("solarize", (solarize.threshold,))),
}


def _cannot(reason: str) -> str:
    return (
        f"the fast augmentation cannot stand in for this checkout's: its chain of transforms {reason}. "
        "Set `loader: {augmentation: upstream}` to use the checkout's own"
    )
