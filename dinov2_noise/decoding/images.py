"""Image files → pixels, or an error that names the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dinov2_noise.decoding.formats import HEAD_BYTES, reader_of
from dinov2_noise.decoding.values import DTYPE_RANGE, Stored, ValueRange, scaled, to_uint8
from dinov2_noise.errors import ImageError


def load_pixels(path: Path, values: ValueRange = DTYPE_RANGE) -> NDArray[Any]:
    """The image in ``path``, nothing lost: (H, W, 3) uint8 of an 8-bit file, else float64 in [0, 1]; to read only.

    8-bit files give the pixels of Pillow's ``convert("RGB")``; with another range than ``dtype`` they too give floats.
    Gray becomes three equal channels, an alpha channel is dropped, of several frames or pages the first is taken, an
    EXIF orientation is not applied (nor does DINOv2).

    Args:
        path: PNG, JPEG, WebP, BMP, TIFF, NPY, FITS or DICOM, told by its content, then by its suffix.
        values: which stored values are black and white.

    Raises:
        ImageError: there is no such file, it is empty, truncated, no image, of a shape that is not one, needs a
            library that is not installed, or ``values`` does not fit it.
    """
    with _reading(path):
        return _pixels(_stored(path.read_bytes(), path), values)


def decode_pixels(data: bytes, path: Path, values: ValueRange = DTYPE_RANGE) -> NDArray[Any]:
    """`load_pixels` for the bytes of a file; ``path`` says what to call it in errors, and its suffix.

    Raises:
        ImageError: as for `load_pixels`.
    """
    with _reading(path):
        return _pixels(_stored(data, path), values)


def load_rgb(path: Path, values: ValueRange = DTYPE_RANGE) -> Image.Image:
    """`load_pixels`, rounded to 8-bit RGB where the file has more bits.

    Raises:
        ImageError: as for `load_pixels`.
    """
    with _reading(path):
        stored = _stored(path.read_bytes(), path)
        if isinstance(stored, Image.Image) and values == DTYPE_RANGE:
            return stored
        pixels = _pixels(stored, values)
        return Image.fromarray(pixels if pixels.dtype == np.uint8 else to_uint8(pixels))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the file's header alone.

    Raises:
        ImageError: there is no such file, its header cannot be read, or the library for its format is not installed.
    """
    with _reading(path), path.open("rb") as file:
        return _size(file, path)


def decode_size(data: bytes, path: Path) -> tuple[int, int]:
    """`image_size` for the bytes of a file.

    Raises:
        ImageError: as for `image_size`.
    """
    with _reading(path):
        return _size(io.BytesIO(data), path)


def _stored(data: bytes, path: Path) -> Image.Image | Stored:
    """8-bit RGB as Pillow makes it, or the values of a file that Pillow cannot read without loss."""
    if not data:
        raise ImageError(path, "the file is empty")
    stored = reader_of(data[:HEAD_BYTES], path).read(data)
    if isinstance(stored, Stored):
        if not stored.values.size:
            raise ImageError(path, "it has no pixels")
        return stored
    return stored.convert("RGB")


def _pixels(stored: Image.Image | Stored, values: ValueRange) -> NDArray[Any]:
    if isinstance(stored, Image.Image):
        pixels = np.asarray(stored)
        return pixels if values == DTYPE_RANGE else scaled(Stored(pixels, (0, 255)), values)
    if values == DTYPE_RANGE and stored.has_8_bits:
        pixels = 255 - stored.values if stored.is_inverted else stored.values
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)
    return scaled(stored, values)


def _size(file: BinaryIO, path: Path) -> tuple[int, int]:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return reader_of(head, path).size(file)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as cause:
        raise ImageError(path, "the file does not exist") from cause
    except Image.DecompressionBombError as cause:
        raise ImageError(path, f"{cause} It is too large to be read as a whole: cut it into tiles") from cause
    except UnidentifiedImageError as cause:
        raise ImageError(path, "not an image, or of a format that is not known here") from cause
    except Exception as cause:  # decoders raise nearly any type on a broken file
        raise ImageError(path, cause) from cause
