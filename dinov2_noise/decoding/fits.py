"""FITS, through astropy (extra ``fits``).

Rows are in the order of the file; FITS viewers draw the first at the bottom.
"""

from __future__ import annotations

import gzip
import io
from typing import Any, BinaryIO

import numpy as np

from dinov2_noise.decoding.layouts import native, planes_last, with_missing
from dinov2_noise.decoding.values import Stored, type_ends

HEAD = b"SIMPLE  ="
GZIP_HEAD = b"\x1f\x8b"


def read(data: bytes) -> Stored:
    """The first HDU that holds an image, BSCALE and BZERO applied; BLANK and NaN are no data."""
    with _opened(gzip.decompress(data) if data.startswith(GZIP_HEAD) else data) as hdus:
        hdu = _image(hdus)
        try:
            array = native(hdu.data)
        except TypeError as cause:  # numpy's word for it
            raise ValueError(f"the file is cut off ({cause})") from cause
        ends = type_ends(array.dtype)
        blank, zero = hdu.header.get("BLANK"), hdu.header.get("BZERO", 0)
        if blank is not None and array.dtype.kind == "u":  # astropy turns BLANK into NaN of other types only
            array = with_missing(array, array == blank + zero)
        return Stored(planes_last(array), ends)


def size(file: BinaryIO) -> tuple[int, int]:
    is_zipped = file.read(len(GZIP_HEAD)) == GZIP_HEAD
    file.seek(0)
    with _opened(gzip.decompress(file.read()) if is_zipped else file) as hdus:
        height, width, _ = planes_last(np.broadcast_to(np.uint8(0), _image(hdus).shape)).shape
        return width, height


def _opened(source: bytes | BinaryIO) -> Any:
    try:
        from astropy.io import fits
    except ImportError as cause:
        raise ValueError("FITS files need astropy: pip install 'dinov2-noise[fits]'") from cause
    return fits.open(io.BytesIO(source) if isinstance(source, bytes) else source, memmap=False)


def _image(hdus: Any) -> Any:
    for hdu in hdus:
        if hdu.is_image and len(hdu.shape) >= 2:
            return hdu
    raise ValueError(f"none of its {len(hdus)} HDUs holds an image: it is a table or spectrum, or the file is cut off")
