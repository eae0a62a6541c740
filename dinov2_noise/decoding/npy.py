"""NumPy's ``.npy`` files."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from dinov2_noise.decoding.layouts import channels_last, native
from dinov2_noise.decoding.values import Stored, type_ends

HEAD = b"\x93NUMPY"


def read(data: bytes) -> Stored:
    """(H, W), (H, W, 1), (H, W, 3) or (3, H, W) numbers of any real type and byte order; pickles are refused."""
    array = native(np.load(io.BytesIO(data), allow_pickle=False))
    return Stored(channels_last(array), type_ends(array.dtype))


def size(file: BinaryIO) -> tuple[int, int]:
    version = npy_format.read_magic(file)
    reading = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, _ = reading(file)
    height, width, _ = channels_last(np.broadcast_to(np.uint8(0), shape)).shape
    return width, height
