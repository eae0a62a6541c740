"""Reading IDX files, in which MNIST and its successors (Fashion-MNIST, KMNIST, …) are published.

Format: LeCun, Cortes, Burges, "The MNIST database of handwritten digits": two zero bytes, the type of the values, the
number of axes, each axis' length (big-endian, 32 bit), then the values. Only unsigned bytes are read:
all these sets use them.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import DinoNoiseError

_UNSIGNED_BYTE = 0x08


class DigitsError(DinoNoiseError, ValueError):
    """The toy's digits are not there, too few, or in a damaged file."""


def read_idx(path: Path, *, axes: int) -> NDArray[np.uint8]:
    """The values of an IDX file of unsigned bytes, plain or (``.gz``) packed.

    Args:
        path: the file.
        axes: how many it must have: 3 for images, 1 for labels.

    Raises:
        DigitsError: it cannot be read, is damaged, or holds something else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as cause:  # gzip.BadGzipFile is an OSError
        raise _damaged(path, str(cause)) from cause
    start = 4 + 4 * axes
    if len(content) < start or content[:2] != b"\0\0":
        raise _damaged(path, "it does not begin as an IDX file does")
    if content[2] != _UNSIGNED_BYTE or content[3] != axes:
        raise _damaged(
            path, f"it should hold unsigned bytes (type 8) of {axes} axes, not type {content[2]} of {content[3]}"
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    found, announced = len(content) - start, math.prod(shape)
    if found != announced:
        sizes = " x ".join(map(str, shape))
        raise _damaged(path, f"it announces {sizes} values and holds {found:,} instead of {announced:,}")
    return np.array(np.frombuffer(content, np.uint8, offset=start)).reshape(shape)  # a copy: bytes cannot be written to


def _damaged(path: Path, cause: str) -> DigitsError:
    return DigitsError(f"cannot use {path}: {cause}. Download or copy it again")
