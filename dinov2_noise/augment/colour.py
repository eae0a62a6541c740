"""Changes of colour on 8-bit values held as float32, each as Pillow rounds it.

torchvision's transforms of pictures call Pillow, which goes from 8 bits to 8 bits in every step. The functions here
repeat that arithmetic, truncation included, on whole planes at once. With ``eight_bit`` false nothing is rounded
between the steps: for images of greater depth.

All take planes (3, H, W), red, green, blue, float32, values 0 … 255 (whole numbers when ``eight_bit``), C-contiguous,
and change them in place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
WHITE = 255.0
# Rec. 601, in 65536ths as Pillow has them: every sum below is a whole number under 2^24, so float32 is exact.
_LUMA = np.array([19595, 38470, 7471], dtype=np.float32)
_LUMA_ONE = np.float32(65536)
# In place of the 0 by which greys and black would be divided.
_TINY = np.float32(1e-6)
# A colour as a function of the hue h in sextants (0 … 6): its share of "not this colour" is clip(a |h - c| + b, 0, 1).
_CENTRE = np.array([3, 2, 4], dtype=np.float32).reshape(3, 1, 1)
_SLOPE = np.array([-1, 1, 1], dtype=np.float32).reshape(3, 1, 1)
_OFFSET = np.array([2, -1, -1], dtype=np.float32).reshape(3, 1, 1)


def brightness(planes: Planes, factor: float, *, eight_bit: bool = True) -> None:
    """y = factor x."""
    planes *= np.float32(factor)
    _finish(planes, factor, eight_bit)


def contrast(planes: Planes, factor: float, *, eight_bit: bool = True) -> None:
    """y = m + factor (x - m), where m is the image's mean luma, rounded to a whole number when ``eight_bit``."""
    mean = float(luma(planes, eight_bit=eight_bit).mean(dtype=np.float64))
    _blend(planes, np.float32(int(mean + 0.5) if eight_bit else mean), factor, eight_bit)


def saturation(planes: Planes, factor: float, *, eight_bit: bool = True) -> None:
    """y = l + factor (x - l), where l is the pixel's luma."""
    _blend(planes, luma(planes, eight_bit=eight_bit), factor, eight_bit)


def grayscale(planes: Planes, *, eight_bit: bool = True) -> None:
    """Each colour becomes the pixel's luma."""
    planes[...] = luma(planes, eight_bit=eight_bit)


def solarize(planes: Planes, threshold: float, *, eight_bit: bool = True) -> None:
    """Values from ``threshold`` on are inverted."""
    np.subtract(WHITE, planes, out=planes, where=planes >= threshold)


def luma(planes: Planes, *, eight_bit: bool = True) -> Planes:
    """0.299 R + 0.587 G + 0.114 B, (H, W); rounded to the nearest when ``eight_bit``."""
    grey: Planes = (_LUMA @ planes.reshape(3, -1)).reshape(planes.shape[1:])
    if not eight_bit:
        grey /= _LUMA_ONE
        return grey
    grey += _LUMA_ONE / 2
    grey /= _LUMA_ONE
    return np.floor(grey, out=grey)


def hue(planes: Planes, turns: float, *, eight_bit: bool = True) -> None:
    """The hue turned by ``turns`` of the colour circle; value (the largest colour) and saturation stay.

    When ``eight_bit``, hue and saturation are truncated to 8 bits as in Pillow's mode HSV, and the hue is turned modulo
    256 as torchvision does, although the circle has 255 steps.
    """
    value = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    chroma = value - np.minimum(np.minimum(planes[0], planes[1]), planes[2])
    share = chroma / np.maximum(value, _TINY)
    circle = _turns(planes, value, chroma)
    if eight_bit:
        circle = (_truncated(circle) + np.int32(turns * WHITE).astype(np.uint8)) * np.float32(6 / WHITE)
        share = _truncated(share) * np.float32(1 / WHITE)
    else:
        circle = (circle + np.float32(turns)) % 1 * 6
    np.subtract(circle, _CENTRE, out=planes)
    np.abs(planes, out=planes)
    planes *= _SLOPE
    planes += _OFFSET
    np.clip(planes, 0, 1, out=planes)
    share *= value
    planes *= share
    np.subtract(value, planes, out=planes)
    if eight_bit:
        np.rint(planes, out=planes)


def _turns(planes: Planes, value: Planes, chroma: Planes) -> Planes:
    """Hue (H, W) in 0 … 1 turn of the circle: 0 red, 1/3 green, 2/3 blue; 0 for greys.

    float64 where Pillow's C has it: the last bit decides about hues that are a whole number of 255ths.
    """
    red, green, blue = (value - planes) / np.maximum(chroma, _TINY)
    is_red = planes[0] == value
    is_green = (planes[1] == value) & ~is_red
    sextants: Planes = (blue - green) * is_red
    sextants += (np.subtract(red, blue, dtype=np.float64) + 2) * is_green
    sextants += (np.subtract(green, red, dtype=np.float64) + 4) * ~(is_red | is_green)
    sextants /= 6
    sextants += sextants < 0
    return sextants


def _truncated(shares: Planes) -> NDArray[np.uint8]:
    """[0, 1] → 0 … 255, truncated; multiplied in float64 as Pillow does, which decides where the product is whole."""
    scaled: NDArray[np.float64] = np.multiply(shares, WHITE, dtype=np.float64)
    return scaled.astype(np.uint8)


def _blend(planes: Planes, base: Planes | np.float32, factor: float, eight_bit: bool) -> None:
    planes -= base
    planes *= np.float32(factor)
    planes += base
    _finish(planes, factor, eight_bit)


def _finish(planes: Planes, factor: float, eight_bit: bool) -> None:
    """Clip where values can have left the range, and truncate."""
    if not 0 <= factor <= 1:
        np.clip(planes, 0, WHITE, out=planes)
    if eight_bit:
        np.floor(planes, out=planes)
