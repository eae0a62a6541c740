"""What Pillow reads without loss, and PNG files of 16 bits, of which its plain ``open`` loses the lower eight."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.decoding.values import Stored

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
# Pillow's modes of more than 8 bits per channel: `.convert("RGB")` clips those to 255, that is to white.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# Colour types of a PNG's IHDR chunk, whose content lies at these bytes of the file.
_GRAY, _RGB, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6
_IHDR = slice(16, 29)
_DEPTH, _COLOUR = 24, 25


def read(data: bytes) -> Image.Image:
    """JPEG, WebP, BMP, and what else Pillow knows of 8 bits per channel."""
    image = Image.open(io.BytesIO(data))
    if image.mode in _DEEP_MODES:
        raise ValueError(
            f"it has more than 8 bits per channel (mode {image.mode}), read here of PNG, TIFF, NPY, FITS and DICOM "
            f"files only, not of {image.format}: write it as one of those"
        )
    return image


def size(file: BinaryIO) -> tuple[int, int]:
    return Image.open(file).size


def read_png(data: bytes) -> Stored | Image.Image:
    """A PNG of any kind; 16-bit ones to the last bit."""
    if len(data) < _IHDR.stop or data[_DEPTH] != 16:
        return read(data)
    readers = {_GRAY: _gray, _RGB: _rgb, _GRAY_ALPHA: _gray_alpha, _RGB_ALPHA: _rgb}
    if data[_COLOUR] not in readers:
        raise ValueError(f"its header is damaged: there is no 16-bit PNG of colour type {data[_COLOUR]}")
    return Stored(readers[data[_COLOUR]](data), (0, 65535))


def _gray(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.uint16)[..., np.newaxis]


def _rgb(data: bytes) -> NDArray[Any]:
    """The file decoded twice: PNG is big-endian, so that reading it as little-endian takes the lower bytes."""
    upper, lower = (_half(data, order) for order in "BL")
    return upper.astype(np.uint16) << 8 | lower


def _half(data: bytes, order: str) -> NDArray[np.uint8]:
    image: Any = Image.open(io.BytesIO(data))
    decoder, box, offset, _ = image.tile[0]
    image.tile = [(decoder, box, offset, f"{image.mode};16{order}")]
    return np.asarray(image)[..., :3]


def _gray_alpha(data: bytes) -> NDArray[Any]:
    """Read as RGBA of 8 bits, which has as many bytes per pixel: two of gray, two of alpha."""
    Image.open(io.BytesIO(data))  # checks the header that is about to be replaced
    width, height, *_, interlace = struct.unpack(">IIBBBBB", data[_IHDR])
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, _RGB_ALPHA, 0, 0, interlace)
    body = data[_IHDR.stop + 4 :]
    image = Image.open(io.BytesIO(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + body))
    pairs = np.asarray(image).astype(np.uint16)
    return pairs[..., :1] << 8 | pairs[..., 1:2]
