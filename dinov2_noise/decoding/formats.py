"""Which reader a file needs: told by its first bytes, then by its suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from dinov2_noise.decoding import dicom, fits, npy, pillow, tiff
from dinov2_noise.decoding.values import Stored

HEAD_BYTES = dicom.HEAD_AT + len(dicom.HEAD)


class Reader(NamedTuple):
    """How a format is read; both raise ValueError, or whatever the library raises, on a bad file.

    Attributes:
        read: the file's bytes → values, or a Pillow image of 8 bits.
        size: the file → (width, height) in pixels.
    """

    read: Callable[[bytes], Stored | Image.Image]
    size: Callable[[BinaryIO], tuple[int, int]]


_PNG = Reader(pillow.read_png, pillow.size)
_PILLOW = Reader(pillow.read, pillow.size)
_TIFF = Reader(tiff.read, tiff.size)
_NPY = Reader(npy.read, npy.size)
_FITS = Reader(fits.read, fits.size)
_DICOM = Reader(dicom.read, dicom.size)

_HEADS = (
    (pillow.PNG_HEAD, _PNG),
    (b"\xff\xd8\xff", _PILLOW),  # JPEG
    *((head, _TIFF) for head in tiff.HEADS),
    (npy.HEAD, _NPY),
    (fits.HEAD, _FITS),
    (fits.GZIP_HEAD, _FITS),
)
# Asked where the first bytes say nothing: the format's own reader then tells best what is wrong with a file.
_SUFFIXES = {
    ".npy": _NPY,
    ".fits": _FITS,
    ".fit": _FITS,
    ".fts": _FITS,
    ".gz": _FITS,
    ".dcm": _DICOM,
    ".dicom": _DICOM,
}


def reader_of(head: bytes, path: Path) -> Reader:
    """The reader for a file that begins with ``head`` (`HEAD_BYTES` of it, or all of a shorter one)."""
    for start, reader in _HEADS:
        if head.startswith(start):
            return reader
    if head[dicom.HEAD_AT :] == dicom.HEAD:
        return _DICOM
    return _SUFFIXES.get(path.suffix.lower(), _PILLOW)
