"""What one file is: its real format, size, channels, bits, values; or why it cannot be used."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dinov2_noise.check.source import images_of, listed_path
from dinov2_noise.data import DatasetSpec
from dinov2_noise.decoding import ValueRange, decode_pixels
from dinov2_noise.decoding.formats import HEAD_BYTES, Reader, reader_of
from dinov2_noise.decoding.values import Stored, scaled
from dinov2_noise.errors import DinoNoiseError, ImageError

DIGEST_BYTES = 16

Fault = Literal["missing", "empty", "no image", "damaged", "range", "package"]
FAULTS: dict[Fault, str] = {
    "missing": "listed, but cannot be opened",
    "empty": "empty",
    "no image": "no image, or of a format that is not known",
    "damaged": "damaged: the header can be read, the pixels cannot, or only in part",
    "range": "do not fit the range of values",
    "package": "need a package that is not installed",
}

_MAGIC = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\x93NUMPY", "NPY"),
    (0, b"SIMPLE", "FITS"),
    (0, b"\x1f\x8b", "FITS"),  # compressed
    (128, b"DICM", "DICOM"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
)
_KIND_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
    ".fits": "FITS",
    ".fit": "FITS",
    ".fts": "FITS",
    ".gz": "FITS",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
}
_CHANNELS = {
    **dict.fromkeys(("1", "L"), "gray"),
    **dict.fromkeys(("LA", "La", "PA"), "gray with alpha"),
    **dict.fromkeys(("RGBA", "RGBa", "RGBX"), "RGB with alpha"),
    "P": "palette",
}
_SEEN_PIXELS = 2**16  # of an image's values that are sorted


class Values(NamedTuple):
    """Of stored numbers that are not plain 8 bit.

    Attributes:
        low, high: the least and the greatest.
        median, bright: percentiles 50 and 99.9.
        spread: of 98 % of the values: percentile 99 less percentile 1.
        missing: share of pixels without data.
        ends: what range ``dtype`` makes black and white; None where the type has none.
        has_window: the file names a window of its own.
    """

    low: float
    high: float
    median: float
    bright: float
    spread: float
    missing: float
    ends: tuple[float, float] | None
    has_window: bool


class Facts(NamedTuple):
    """Attributes: suffix in lower case; the real format; channels and depth in words; sides in px; values."""

    suffix: str
    kind: str
    channels: str
    depth: str
    width: int
    height: int
    values: Values | None

    @property
    def is_misnamed(self) -> bool:
        """The suffix is that of another format."""
        return _KIND_OF_SUFFIX.get(self.suffix, self.kind) != self.kind


class Look(NamedTuple):
    """What was found out about image ``number``.

    Attributes:
        number, path: of the image.
        size_bytes: of its file.
        bytes_digest, pixels_digest: empty where the file was not read as a whole, or not decoded.
        facts: None where the header cannot be read.
        fault, cause: why it cannot be used; None and empty where it can.
        is_whole: the file was to be decoded, not its header alone read.
    """

    number: int
    path: str
    size_bytes: int
    bytes_digest: bytes
    pixels_digest: bytes
    facts: Facts | None
    fault: Fault | None
    cause: str
    is_whole: bool


@dataclass(frozen=True)
class Looker:
    """Looks at image number i; picklable.

    Attributes:
        spec: of the images.
        decode: read and decode the file; else its header alone is read.
    """

    spec: DatasetSpec
    decode: bool

    def __call__(self, index: int) -> Look:
        images, path = images_of(self.spec), f"image {index}"
        try:
            path = listed_path(images, index)
            path = images.relative_path(index)
            file = self.spec.root / path
            if file.exists() and not file.is_file():  # a pipe: reading it would wait for ever
                return Look(index, path, 0, b"", b"", None, "no image", "not a file", self.decode)
            whole = self.decode or not file.is_file()
            data = images.get_image_data(index) if whole else head_of(file)
        except (OSError, DinoNoiseError) as cause:
            return Look(index, path, 0, b"", b"", None, "missing", _reason(cause), self.decode)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries' remarks on odd metadata
            if not self.decode:
                return _header_look(index, path, file, data)
            return _look(index, path, file, data, self.spec)


def digest_of(data: bytes | memoryview, *more: bytes) -> bytes:
    """16 bytes: two different files of a million are given the same with a chance of 10^-27."""
    state = hashlib.blake2b(data, digest_size=DIGEST_BYTES)
    for part in more:
        state.update(part)
    return state.digest()


def _look(index: int, path: str, file: Path, data: bytes, spec: DatasetSpec) -> Look:
    if not data:
        return Look(index, path, 0, b"", b"", None, "empty", "the file is empty", True)
    digest, reader, stored = digest_of(data), reader_of(data[:HEAD_BYTES], file), None
    try:
        stored = reader.read(data)  # of what Pillow reads, the header
        pixels = _pixels(stored, data, file, spec.values)
    except Exception as failure:  # decoders raise nearly any type on a broken file
        facts = _size_alone(reader, data, file) if stored is None else _facts(stored, data, file)
        return Look(index, path, len(data), digest, b"", facts, _fault(failure, facts), _reason(failure), True)
    shape = repr(pixels.shape).encode()
    of_pixels = digest_of(np.ascontiguousarray(pixels).data.cast("B"), shape, pixels.dtype.char.encode())
    return Look(index, path, len(data), digest, of_pixels, _facts(stored, data, file), None, "", True)


def _pixels(stored: Stored | Image.Image, data: bytes, file: Path, values: ValueRange) -> NDArray[Any]:
    """What `decode_pixels` gives; what is read already is not read again where that takes long."""
    if isinstance(stored, Stored) and stored.values.size and not stored.has_8_bits:
        return scaled(stored, values)
    return decode_pixels(data, file, values)


def _header_look(index: int, path: str, file: Path, head: bytes) -> Look:
    size_bytes = file.stat().st_size if file.is_file() else len(head)
    try:
        if not size_bytes:
            raise ImageError(file, "the file is empty")
        with file.open("rb") if file.is_file() else io.BytesIO(head) as opened:
            width, height = reader_of(head[:HEAD_BYTES], file).size(opened)
    except Exception as cause:  # decoders raise nearly any type on a broken file
        fault: Fault = "empty" if not size_bytes else _package(cause) or "no image"
        return Look(index, path, size_bytes, b"", b"", None, fault, _reason(cause), False)
    facts = Facts(_suffix(file), _kind(head), "", "", width, height, None)
    return Look(index, path, size_bytes, b"", b"", facts, None, "", False)


def _size_alone(reader: Reader, data: bytes, file: Path) -> Facts | None:
    """What the header says of a file that cannot be read; None where it says nothing either."""
    try:
        width, height = reader.size(io.BytesIO(data))
    except Exception:  # as above
        return None
    return Facts(_suffix(file), _kind(data), "", "", width, height, None)


def _facts(stored: Stored | Image.Image, data: bytes, file: Path) -> Facts:
    if isinstance(stored, Image.Image):
        channels, depth = _CHANNELS.get(stored.mode, stored.mode), f"{_bits(data, stored)} bit"
        return Facts(_suffix(file), _kind(data), channels, depth, *stored.size, None)
    height, width, count = stored.values.shape
    values = None if stored.has_8_bits else _values(stored)
    channels = "gray" if count == 1 else "RGB"
    return Facts(_suffix(file), _kind(data), channels, _depth(stored.values.dtype), width, height, values)


def _fault(failure: Exception, facts: Facts | None) -> Fault:
    if facts is not None and facts.values is not None:  # numbers are there
        return "range"
    return _package(failure) or ("no image" if facts is None else "damaged")


def _reason(failure: Exception) -> str:
    """Without the file's name, which stands before it."""
    if isinstance(failure, ImageError):
        return str(failure.cause)
    if isinstance(failure, UnidentifiedImageError):
        return "not an image, or of a format that is not known here"
    return failure.strerror or str(failure) if isinstance(failure, OSError) else str(failure)


def _package(cause: BaseException) -> Fault | None:
    chain = [cause, cause.__cause__, getattr(cause, "__context__", None)]
    missing = any(isinstance(link, ImportError) for link in chain) or "pip install" in str(cause)
    return "package" if missing else None


def head_of(file: Path, limit: int | None = HEAD_BYTES) -> bytes:
    with file.open("rb") as opened:
        return opened.read(limit)


def _suffix(file: Path) -> str:
    return PurePosixPath(file).suffix.lower()


def _kind(head: bytes) -> str:
    return next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), "unknown")


def _bits(data: bytes, image: Image.Image) -> int:
    """Per channel, as far as 8-bit files go: PNG has its own field for it."""
    if image.format == "PNG":
        return data[24]
    return 1 if image.mode == "1" else 8


def _depth(dtype: np.dtype[Any]) -> str:
    name = {"u": "", "i": "signed ", "f": "float ", "b": "boolean "}.get(dtype.kind, f"{dtype.kind} ")
    return f"{name}{8 * dtype.itemsize} bit"


def _values(stored: Stored) -> Values | None:
    """None where no pixel is a number."""
    flat = stored.values.reshape(-1)
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    seen = finite[:: max(1, finite.size // _SEEN_PIXELS)].astype(np.float64)
    dark, median, light, bright = map(float, np.percentile(seen, (1, 50, 99, 99.9)))
    missing, has_window = 1 - finite.size / flat.size, stored.window is not None
    return Values(low, high, median, bright, light - dark, missing, stored.ends, has_window)
