"""Arrays of any layout that is clear → (H, W, 1) or (H, W, 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def planes_last(array: NDArray[Any]) -> NDArray[Any]:
    """(H, W), (1, H, W) or (3, H, W), also behind further axes of length 1, with the channels last.

    Raises:
        ValueError: another shape.
    """
    shape = array.shape
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        return array[..., np.newaxis]
    if array.ndim == 3 and len(array) in (1, 3):
        return np.moveaxis(array, 0, 2)
    raise ValueError(
        f"its shape is {shape}: an image is (height, width), or (3, height, width) for red, green and blue; write each "
        "plane of a cube as a file of its own"
    )


def channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """As `planes_last`, and also (H, W, 1) or (H, W, 3); refused where both could be meant.

    Raises:
        ValueError: another shape, or one that can be read in two ways.
    """
    if array.ndim != 3:
        return planes_last(array) if array.ndim == 2 else _refuse(array)
    is_first, is_last = array.shape[0] in (1, 3), array.shape[2] in (1, 3)
    if is_first and is_last:
        raise ValueError(
            f"its shape {array.shape} can be read as channels first or channels last: store (height, width) for gray, "
            "or an image of more than 3 pixels a side"
        )
    return array if is_last else planes_last(array) if is_first else _refuse(array)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in this machine's byte order.

    Raises:
        ValueError: they are no real numbers.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(f"its values are of type {array.dtype}, not real numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def with_missing(array: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """``array``, as floats with NaN where ``missing``, if anything is."""
    return np.where(missing, np.nan, array.astype(np.float64)) if missing.any() else array


def _refuse(array: NDArray[Any]) -> NDArray[Any]:
    raise ValueError(
        f"its shape is {array.shape}: an image is (height, width), (height, width, 3), (height, width, 1) or "
        "(3, height, width)"
    )
