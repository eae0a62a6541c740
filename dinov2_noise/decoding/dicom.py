"""DICOM, through pydicom (extra ``dicom``)."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.decoding.layouts import with_missing
from dinov2_noise.decoding.values import Stored, Window, type_ends

HEAD, HEAD_AT = b"DICM", 128
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_FRAME_FACTS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}


def read(data: bytes) -> Stored:
    """The first frame, in the modality's units (Hounsfield units of a CT); padding is no data."""
    file = _opened(io.BytesIO(data))
    if not any(name in file for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("it holds no image: it has no Pixel Data")
    from pydicom.pixels.utils import pixel_array

    try:
        raw = pixel_array(file, index=0)
    except RuntimeError as cause:
        if "missing dependencies" not in str(cause):
            raise
        text = " ".join(str(cause).split())
        raise ValueError(f"{text}. All of its compressions are read after: pip install python-gdcm") from cause
    kind = file.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        return _palette(raw, file)
    if kind.startswith("MONOCHROME"):
        _first_frames_facts(file)
        return _gray(raw, file)
    if raw.ndim != 3 or raw.shape[2] != 3:
        raise ValueError(f"an image of kind {kind} and shape {raw.shape} is not read: convert it to gray or RGB")
    return Stored(raw, (0, 2**file.BitsStored - 1))


def size(file: BinaryIO) -> tuple[int, int]:
    header = _opened(file, specific_tags=["Rows", "Columns"], stop_before_pixels=True)
    return int(header.Columns), int(header.Rows)


def _opened(file: BinaryIO, **options: Any) -> Any:
    try:
        import pydicom
    except ImportError as cause:
        raise ValueError("DICOM files need pydicom 3: pip install 'dinov2-noise[dicom]'") from cause
    return pydicom.dcmread(file, **options)


def _palette(raw: NDArray[Any], file: Any) -> Stored:
    from pydicom.pixels.processing import apply_color_lut

    return Stored(apply_color_lut(raw, file), (0, 2 ** file.RedPaletteColorLookupTableDescriptor[2] - 1))


def _first_frames_facts(file: Any) -> None:
    """Of a multi-frame file, put what is said of the first frame where single-frame files have it."""
    for groups in (_SHARED, _PER_FRAME):
        for group in file.get(groups, [])[:1]:
            for sequence, names in _FRAME_FACTS.items():
                for facts in group.get(sequence, [])[:1]:
                    for name in names:
                        if name in facts:
                            setattr(file, name, facts.get(name))


def _gray(raw: NDArray[Any], file: Any) -> Stored:
    from pydicom.pixels.processing import apply_modality_lut

    is_inverted = file.PhotometricInterpretation == "MONOCHROME1"
    values = raw if _rescale(file) == (1, 0) and "ModalityLUTSequence" not in file else apply_modality_lut(raw, file)
    values = with_missing(values, _is_padding(raw, file))[..., np.newaxis]
    if raw.dtype.kind == "f":
        return Stored(values, type_ends(values.dtype), is_inverted)
    first, last = _ends(file)
    return Stored(values, (min(first, last), max(first, last)), is_inverted, _window(file, first, last))


def _rescale(file: Any) -> tuple[float, float]:
    return float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))


def _is_padding(raw: NDArray[Any], file: Any) -> NDArray[np.bool_]:
    """What was filled up outside of what the scanner saw (PS3.3, C.7.5.1.1.2), a value or a range of them."""
    value = file.get("PixelPaddingValue")
    if value is None:
        return np.zeros(raw.shape, bool)
    limit = file.get("PixelPaddingRangeLimit", value)
    return np.asarray((raw >= min(value, limit)) & (raw <= max(value, limit)))


def _ends(file: Any) -> tuple[float, float]:
    """What the least and the greatest number of the bits stored mean, in the modality's units."""
    if "ModalityLUTSequence" in file:
        return 0, 2 ** file.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    slope, intercept = _rescale(file)
    least = -(2 ** (file.BitsStored - 1)) if file.PixelRepresentation else 0
    return least * slope + intercept, (least + 2**file.BitsStored - 1) * slope + intercept


def _window(file: Any, first: float, last: float) -> Window | None:
    """From the modality's units to [0, 1]: the file's table, else its window; pydicom spreads that over the ends."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if file.get("VOILUTSequence"):
        white = 2 ** file.VOILUTSequence[0].LUTDescriptor[2] - 1
        return lambda values: apply_voi(np.rint(np.nan_to_num(values)).astype(np.int64), file) / white
    if "WindowCenter" not in file or "WindowWidth" not in file:
        return None
    return lambda values: (apply_windowing(values, file) - first) / (last - first)
