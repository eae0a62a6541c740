"""TIFF: 8 bits through Pillow, all else through tifffile."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dinov2_noise.decoding.layouts import native, with_missing
from dinov2_noise.decoding.values import Stored, type_ends

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _NO_DATA = 258, 339, 42113
_UNSIGNED = 1
_ALPHA = (1, 2)


def read(data: bytes) -> Stored | Image.Image:
    """The first page: gray or RGB, an alpha channel dropped; GDAL's no-data value becomes NaN."""
    image = _of_8_bits(data)
    if image is not None:
        return image
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        colours = _colours(page)
        try:
            array = native(page.asarray())
        except ValueError as cause:
            if "imagecodecs" not in str(cause):
                raise
            raise ValueError(f"{cause}: pip install 'dinov2-noise[tiff]'") from cause
        values = _with_last_axis(array, page.axes)[..., :colours]
        ends, is_inverted = _ends(page, array.dtype), page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        if _NO_DATA in page.tags:
            values = with_missing(values, values == page.nodata)
    return Stored(values, ends, is_inverted)


def size(file: BinaryIO) -> tuple[int, int]:
    try:
        return Image.open(file).size
    except UnidentifiedImageError:
        import tifffile

        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page: Any = tiff.pages[0]
            return page.imagewidth, page.imagelength


def _of_8_bits(data: bytes) -> Image.Image | None:
    try:
        image: Any = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        return None
    bits, formats = (image.tag_v2.get(tag, (1,)) for tag in (_BITS_PER_SAMPLE, _SAMPLE_FORMAT))
    return image if max(bits) <= 8 and {*formats} == {_UNSIGNED} else None


def _colours(page: Any) -> int:
    """1 or 3, the channels without alpha."""
    kind, extra = page.photometric.name, tuple(map(int, page.extrasamples))
    colours = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3}.get(kind)
    if colours is None or page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"a TIFF of kind {kind} with axes {page.axes} is not read: convert it to gray or RGB")
    # RGB files are often written with an alpha channel that is not called one.
    is_alpha = not extra or (len(extra) == 1 and (extra[0] in _ALPHA or colours == 3))
    if page.samplesperpixel != colours + len(extra) or not is_alpha:
        raise ValueError(
            f"it has {page.samplesperpixel} channels of which {colours} are called {kind}: choose one or three, and "
            "write them as gray or RGB"
        )
    return colours


def _with_last_axis(array: NDArray[Any], axes: str) -> NDArray[Any]:
    return array[..., np.newaxis] if axes == "YX" else np.moveaxis(array, axes.index("S"), 2)


def _ends(page: Any, dtype: np.dtype[Any]) -> tuple[float, float] | None:
    bits = page.bitspersample
    if dtype.kind == "u" and bits < 16:
        return (0, 2**bits - 1)
    return type_ends(dtype)
