"""Pairs of a noisy image and its denoised twin: the same path under two roots, whatever the suffixes."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dinov2_noise.data.listing import walk
from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.errors import OutputFolderError, PairError
from dinov2_noise.files import MANIFEST_NAME, list_images, read_manifest

# In order of preference when one stem exists several times: what our own commands write, then the rest.
_PICTURES = (".png", ".JPEG", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".PNG", ".JPG", ".TIF", ".TIFF")
_LOUD = (".WEBP", ".BMP", ".DICOM", ".GZ")
_ARRAYS = (".npy", ".fits", ".fit", ".fts", ".gz", ".dcm", ".dicom", ".NPY", ".FITS", ".FIT", ".FTS", ".DCM")
_SUFFIXES = _PICTURES + _ARRAYS + _LOUD

_FEW, _BLOCK, _LOOKED_AT = 2048, 65536, 512


class PairedSource(Protocol):
    """What a view loader needs of a dataset; of full depth also what `augment.views.DeepLoader` has."""

    transform: Callable[[Any], Any] | None

    def noisy(self, index: int) -> Image.Image:
        """Image ``index`` as training on noisy data sees it, 8-bit RGB."""
        ...

    def denoised(self, index: int) -> Image.Image:
        """Its denoised twin, of the same size, 8-bit RGB."""
        ...


def stem_of(relative_path: str) -> str:
    """``train/a/b_1.JPEG`` as ``train/a/b_1``: what the two images of a pair have in common."""
    return posixpath.splitext(relative_path)[0]


def find_twin(root: Path, relative_path: str) -> str | None:
    """The image with ``relative_path``'s stem under ``root``: this very path, a ``.png``, or another image suffix."""
    if (root / relative_path).is_file():
        return relative_path
    return find_stem(root, stem_of(relative_path))


def find_stem(root: Path, stem: str) -> str | None:
    """The relative path of the image ``stem`` (a relative path without suffix) under ``root``, or None."""
    return next((stem + suffix for suffix in _SUFFIXES if (root / (stem + suffix)).is_file()), None)


def check_pairs(noisy_paths: Iterable[str], denoised_root: Path, *, count: int | None = None) -> None:
    """Check that each image has a denoised twin: by a look for each of a few images, or by one walk for many.

    Of a million images 8 bytes each are held: a hash of 64 bits. That one of a million missing twins goes unseen for
    an equal hash has a chance of 10^-7, and reading it names it.

    Args:
        noisy_paths: relative paths below the noisy root; suffixes do not matter.
        denoised_root: root of the denoised images.
        count: how many paths there are, where that is known.

    Raises:
        MissingFolderError: ``denoised_root`` does not exist or holds no images.
        PairError: twins are missing; the first five are named.
    """
    if count is not None and count <= _FEW and denoised_root.is_dir():
        missing = [path for path in noisy_paths if find_stem(denoised_root, stem_of(path)) is None]
        total = count
    else:
        missing, total = _absent(noisy_paths, denoised_root)
    if missing:
        if len(missing) == total:
            list_images(denoised_root, what="denoised folder")  # not one is there: the folder may be missing or empty
        raise PairError.missing(denoised_root, missing, total)


def _absent(noisy_paths: Iterable[str], denoised_root: Path) -> tuple[list[str], int]:
    """The paths without twin, and the number of all."""
    blocks = [_hashes(map(stem_of, paths)) for paths in walk(denoised_root)]
    present = np.sort(np.concatenate([*blocks, np.empty(0, np.int64)]))
    total, missing, paths = 0, [], iter(noisy_paths)
    while block := list(islice(paths, _BLOCK)):
        total += len(block)
        wanted = _hashes(map(stem_of, block))
        places = np.searchsorted(present, wanted)
        is_there = present[np.minimum(places, len(present) - 1)] == wanted if len(present) else np.zeros(len(wanted))
        missing += [path for path, found in zip(block, is_there, strict=True) if not found]
    return missing, total


def _hashes(stems: Iterable[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.fromiter(map(hash, stems), dtype=np.int64)


def is_vouched_for(denoised_root: Path, noisy_root: Path, count: int, listed_path: Callable[[int], str]) -> bool:
    """Whether the denoised folder's own manifest says that every image has its twin, so that none need be looked for.

    It must be complete, without skipped images, made from ``noisy_root`` (or from its noisy copy, where the noise is
    added on the fly), and of no fewer images than there are now; and of 512 images the twins must be there indeed.
    What was deleted since is named when it is read.

    Args:
        denoised_root, noisy_root: of the images.
        count: images below ``noisy_root``.
        listed_path: the relative path of an image, by its number.
    """
    manifest = _manifest(denoised_root)
    parameters = manifest.get("parameters", {})
    before = parameters.get("source_parameters", {})
    sources = {str(parameters.get("source")), str(before.get("source"))}
    complete = manifest.get("complete") is True and not manifest.get("skipped")
    if not complete or str(noisy_root.resolve()) not in sources or int(manifest.get("images", 0)) < count:
        return False
    looked_at = {int(index) for index in np.linspace(0, count - 1, min(count, _LOOKED_AT))}
    return all(find_stem(denoised_root, stem_of(listed_path(index))) is not None for index in looked_at)


def check_range(values: ValueRange, denoised_root: Path, noisy_root: Path) -> None:
    """Check that twins which we made were made with the same values for black and white as the images are read.

    Where both the images that were denoised and those that noise had been added to are known, the ones below
    ``noisy_root`` count; of folders that were moved since, either.

    Raises:
        PairError: they were not.
    """
    manifest = _manifest(denoised_root)
    if not manifest:
        return
    parameters = manifest.get("parameters", {})
    known = [parameters, *filter(None, [parameters.get("source_parameters")])]
    same = [found for found in known if found.get("source") == str(noisy_root.resolve())]
    made_with = {str(found.get("range", DTYPE_RANGE.name)) for found in same or known}
    if values.name not in made_with:
        raise PairError(
            f"the images are read with range {values.name}, and {denoised_root} was made with "
            f"{' and '.join(sorted(made_with))}: give both the same range (in a dataset string range=fixed,0,4095 "
            "for fixed:0,4095)"
        )


def _manifest(folder: Path) -> dict[str, Any]:
    """Of a folder of denoised images that we wrote; empty for others."""
    if not (folder / MANIFEST_NAME).is_file():
        return {}
    try:
        manifest = read_manifest(folder)
    except OutputFolderError:  # of somebody else
        return {}
    return manifest if manifest.get("command") == "denoise apply" else {}
