"""Noisy pixels → the bytes of a PNG or WebP file, without loss, fast, the same on every machine.

Deflating noise with string matching finds nothing to match and takes most of the time, so PNGs are Huffman-coded only.
Pillow tries all five filters on each row besides; here one filter serves a whole image: none, or the average of left
and upper neighbour where the noise is so weak that the picture shows. Format: PNG specification, third edition (W3C).
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.errors import ConfigError

FORMATS = ("png", "webp")

_LOSSY = ("jpg", "jpeg", "jpe", "jfif", "jp2", "j2k", "jxl", "avif", "heic", "heif", "gif")
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL, _HUFFMAN_ONLY = 1, 15, 8, 2
_NO_FILTER, _AVERAGE_FILTER = 0, 3
_JUDGED_ROWS = 32


def check_format(image_format: str) -> str:
    """``image_format`` in lower case.

    Raises:
        ConfigError: it loses information, or is unknown.
    """
    name = image_format.lower().removeprefix(".")
    if name in FORMATS:
        return name
    if name in _LOSSY:
        raise ConfigError(
            f"format {image_format!r} does not keep noise: a JPEG, for one, averages colour over 2x2 pixels, so that "
            f"values of gauss255 images are off by 85 of 255; choose {' or '.join(FORMATS)}, which lose nothing"
        )
    raise ConfigError(f"unknown format {image_format!r}: valid are {' and '.join(FORMATS)}, both lossless")


def encode(pixels: NDArray[np.uint8], image_format: str = "png") -> bytes:
    """The file's bytes.

    Args:
        pixels: (H, W, 3).
        image_format: one of `FORMATS`.

    Raises:
        ConfigError: as for `check_format`.
    """
    return _encode_webp(pixels) if check_format(image_format) == "webp" else encode_png(pixels)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of (H, W, 3) pixels, 8 bits each, one filter for all rows.

    zlib-ng, where it is installed, and zlib give the same bytes here, for Huffman coding leaves them no choice.
    """
    height, width, _ = pixels.shape
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = kind = _best_filter(rows)
    filtered[:, 1:] = rows if kind == _NO_FILTER else _less_average(rows, np.zeros_like(rows[0]))
    deflate = _zlib().compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, _HUFFMAN_ONLY)
    data = deflate.compress(filtered.data) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, deflate, filters, not interlaced
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _encode_webp(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="WEBP", lossless=True, method=1, quality=20, exact=True)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _best_filter(rows: NDArray[np.uint8]) -> int:
    """By the entropy of what each leaves to code, on about 32 rows."""
    step = max(1, len(rows) // _JUDGED_ROWS)
    chosen = rows[step::step]
    if not len(chosen):
        return _NO_FILTER
    left = _entropy(_less_average(chosen, rows[step - 1 : -1 : step][: len(chosen)]))
    return _AVERAGE_FILTER if left < _entropy(chosen) else _NO_FILTER


def _less_average(rows: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``rows`` (n, 3 W) less the average, rounded down, of the pixel to the left and the one above, modulo 256.

    Args:
        above: what lies above each row, (n, 3 W); or above the first, (3 W), where ``rows`` follow each other.
    """
    upper = above if above.ndim == 2 else np.concatenate((above[None], rows[:-1]))
    left = np.zeros_like(rows)
    left[:, 3:] = rows[:, :-3]
    # The carry-free form of (left + upper) // 2 stays within 8 bits.
    average = (left & upper) + ((left ^ upper) >> 1)
    return rows - average


def _entropy(values: NDArray[np.uint8]) -> float:
    """Bits per value."""
    shares = np.bincount(values.ravel(), minlength=256) / values.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


@cache
def _zlib() -> Any:
    """zlib-ng, twice as fast, or what Python has."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:  # no wheel for this machine
        return zlib
    return zlib_ng
