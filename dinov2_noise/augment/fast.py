"""DINOv2's augmentation of one crop, in less time: the actions that `dinov2_noise.augment.draws` has drawn, on arrays.

What takes torchvision's transforms so long is not done here: pictures are not turned into arrays and back for every
change, the image is converted once for all its crops, cropped pixels are resized by torch's kernel for uint8, hue is
turned by arithmetic on whole planes, and the blur is two passes of 9 weights, not one of 81.

Compared with torchvision's chain on the same draws, in 8-bit levels: colours, grey, solarisation, flip and
normalisation are Pillow's (a change of hue may be one level off in some pixels of a million); resizing has Pillow's
weights rounded to 16 bit (one level off in some of a thousand values, very seldom more); the blur adds in another order
(one level off where the result lies between two levels, some of a hundred thousand). A later change of contrast or hue
may carry a level on: Pillow's hue is truncated to 255 steps, each of up to 6 levels.

Draws come from torch's global generator, see `draws`; nothing else is random. 8-bit results are the same for any number
of threads, with vector instructions or without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise.augment import colour
from dinov2_noise.augment.colour import WHITE, Planes
from dinov2_noise.augment.draws import Action, Draws
from dinov2_noise.augment.pixels import Picture

# Weights of a blur below this, of a sum of 1, change no level.
_LEAST_WEIGHT = 1e-6

Pixels = NDArray[np.uint8] | NDArray[np.float32]


def pixels_of(picture: Picture | Tensor) -> Pixels:
    """(H, W, 3) uint8, or float32 of an array, or a tensor (3, H, W), of floating point; not to be written to."""
    if isinstance(picture, Tensor):
        picture = picture.permute(1, 2, 0).numpy()
    if isinstance(picture, Image.Image):
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return picture if picture.dtype == np.uint8 else picture.astype(np.float32, copy=False)


def render(pixels: Pixels, draws: Draws, actions: Iterable[Action]) -> Tensor:
    """The crop of ``pixels`` that ``actions``, drawn by ``draws``, describe.

    Args:
        pixels: (H, W, 3), uint8, or float32 in [0, 1] of images of greater depth, which are rounded nowhere.

    Returns:
        (3, H', W') float32, normalised.
    """
    eight_bit = pixels.dtype == np.uint8
    planes = np.empty((3, 0, 0), dtype=np.float32)
    for name, values in actions:
        if name == "crop":
            planes = crop(pixels, *map(int, values))
        elif name == "flip":
            planes = planes[:, :, ::-1].copy()
        else:
            _CHANGES[name](planes, *values, eight_bit=eight_bit)
    return normalise(planes, draws)


class FastCrops:
    """The crops of a sample: two global ones, with those of a twin, and local ones; drawn in DINOv2's order. Picklable.

    Args:
        global_draws: of the first and of the second global crop.
        local_draws: of all local ones.
        n_local: number of local crops.
    """

    def __init__(self, global_draws: Sequence[Draws], local_draws: Draws, n_local: int) -> None:
        self._global_draws, self._local_draws, self._n_local = tuple(global_draws), local_draws, n_local

    def __call__(self, image: Picture | Tensor, twin: Picture | None = None) -> dict[str, Any]:
        """Upstream's sample: ``global_crops``, the same for the teacher, ``local_crops``, ``offsets``.

        With a twin of equal size also ``global_crops_anchor``: the same parts of it, changed in the same way.
        """
        pixels = pixels_of(image)
        drawn = [draws.draw(*pixels.shape[:2]) for draws in self._global_draws]
        main = self._global_crops(pixels, drawn)
        sample = {"global_crops": main, "global_crops_teacher": list(main), "offsets": ()}
        if twin is not None:
            sample["global_crops_anchor"] = self._global_crops(pixels_of(twin), drawn)
        local = self._local_draws
        sample["local_crops"] = [render(pixels, local, local.draw(*pixels.shape[:2])) for _ in range(self._n_local)]
        return sample

    def _global_crops(self, pixels: Pixels, drawn: Sequence[Sequence[Action]]) -> list[Tensor]:
        return [render(pixels, draws, actions) for draws, actions in zip(self._global_draws, drawn, strict=True)]


def crop(pixels: Pixels, top: int, left: int, height: int, width: int, height_px: int, width_px: int) -> Planes:
    """A part of the image, resized bicubically with antialiasing, as planes (3, height_px, width_px) of 0 … 255.

    Only the part is seen, as when it is cut out first. 8-bit values are rounded to whole numbers.
    """
    part = torch.from_numpy(pixels[top : top + height, left : left + width].copy())
    # torch's fast kernel wants the colours side by side in memory, as pictures have them.
    resized = torch.nn.functional.interpolate(
        part.permute(2, 0, 1)[None], size=(height_px, width_px), mode="bicubic", antialias=True
    )[0]
    planes: Planes = resized.to(torch.float32, memory_format=torch.contiguous_format).numpy()
    if pixels.dtype != np.uint8:
        planes *= np.float32(WHITE)
        np.clip(planes, 0, WHITE, out=planes)
    return planes


def normalise(planes: Planes, draws: Draws) -> Tensor:
    """(x / 255 - mean) / std in this order, as torchvision rounds it; the memory of ``planes`` is the tensor's."""
    planes /= np.float32(WHITE)
    planes -= draws.mean
    planes /= draws.std
    return torch.from_numpy(planes)


def blur(planes: Planes, radius_px: float, sigma_px: float, *, eight_bit: bool = True) -> None:
    """Convolution with a Gaussian of ``2 radius + 1`` weights that sum to 1, in place; edges are mirrored.

    The outermost pixels are not repeated (``reflect``), as in torchvision.
    """
    weights = _weights(int(radius_px), sigma_px)
    radius = len(weights) - 1
    if radius == 0:
        return
    channels, height, width = planes.shape
    padded = _mirrored(planes, radius)
    stride = width + 2 * radius
    rows = _weighted(padded.reshape(channels, -1), weights, stride, height * stride)
    # Along the rows all is one long line: what runs over a row's end lands in the margin, which is left out.
    line = rows.reshape(1, -1)
    columns = np.empty_like(line)
    n_values = line.size - 2 * radius
    columns[:, :n_values] = _weighted(line, weights, 1, n_values)
    finished = columns.reshape(channels, height, stride)[:, :, :width]
    if eight_bit:
        np.rint(finished, out=planes)
    else:
        planes[...] = finished


def _weights(radius: int, sigma: float) -> NDArray[np.float32]:
    """Of the centre, and outwards of its neighbours on one side, as far as they count."""
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    return weights[weights > _LEAST_WEIGHT].astype(np.float32)


def _mirrored(planes: Planes, margin: int) -> Planes:
    """(3, H + 2 margin, W + 2 margin). np.pad takes three times as long."""
    channels, height, width = planes.shape
    padded = np.empty((channels, height + 2 * margin, width + 2 * margin), dtype=np.float32)
    inner = slice(margin, -margin)
    padded[:, inner, inner] = planes
    padded[:, :margin, inner] = planes[:, margin:0:-1]
    padded[:, -margin:, inner] = planes[:, -2 : -margin - 2 : -1]
    padded[:, :, :margin] = padded[:, :, 2 * margin : margin : -1]
    padded[:, :, -margin:] = padded[:, :, -margin - 2 : -2 * margin - 2 : -1]
    return padded


def _weighted(values: Planes, weights: NDArray[np.float32], step: int, length: int) -> Planes:
    """Sum of ``values`` (C, N) and its copies moved by multiples of ``step``, first ``length`` values of each row."""
    radius = len(weights) - 1
    total: Planes = values[:, radius * step : radius * step + length] * weights[0]
    pair = np.empty_like(total)
    for distance in range(1, radius + 1):
        before, after = (radius - distance) * step, (radius + distance) * step
        np.add(values[:, before : before + length], values[:, after : after + length], out=pair)
        pair *= weights[distance]
        total += pair
    return total


_CHANGES: dict[str, Callable[..., None]] = {
    **{change.__name__: change for change in (colour.brightness, colour.contrast, colour.saturation, colour.hue)},
    **{change.__name__: change for change in (colour.grayscale, colour.solarize, blur)},
}
