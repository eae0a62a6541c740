"""Writes what instruments write: FITS frames and DICOM images, by the libraries of those fields."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_fits(path: Path, array: NDArray[Any], *, in_extension: bool = False, **header: Any) -> None:
    """``array`` as the primary HDU, or behind an empty one; ``header``: further cards."""
    hdu = (fits.ImageHDU if in_extension else fits.PrimaryHDU)(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy advises against BLANK in frames of floats
        hdu.header.update(header)
        hdus = [fits.PrimaryHDU(), hdu] if in_extension else [hdu]
        fits.HDUList(hdus).writeto(path, output_verify="ignore")


def write_dicom(path: Path, array: NDArray[Any], *, bits: int | None = None, **elements: Any) -> None:
    """``array``: (H, W) gray, (N, H, W) frames with ``NumberOfFrames``, or (H, W, 3) RGB, of 8 or 16 bits."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    is_rgb = array.ndim == 3 and "NumberOfFrames" not in elements
    file.Rows, file.Columns = array.shape[:2] if is_rgb else array.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = (3, "RGB") if is_rgb else (1, "MONOCHROME2")
    if is_rgb:
        file.PlanarConfiguration = 0
    file.BitsAllocated = 8 * array.dtype.itemsize
    file.BitsStored = bits or file.BitsAllocated
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(array.dtype.kind == "i")
    file.PixelData = np.ascontiguousarray(array).tobytes()
    for name, value in elements.items():
        setattr(file, name, value)
    file.save_as(path)
