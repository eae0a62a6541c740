"""Pairs of a noisy image and its denoised twin: the same path under two roots, whatever the suffixes."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from dinov2_noise.errors import PairError
from dinov2_noise.files import list_images

# In order of preference when one stem exists several times: what our own commands write, then the rest.
_SUFFIXES = (".png", ".JPEG", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".PNG", ".JPG", ".TIF", ".TIFF")


class PairedSource(Protocol):
    """What a view loader needs of a dataset."""

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


def check_pairs(noisy_paths: Iterable[str], denoised_root: Path) -> None:
    """Check that each image has a denoised twin, by one walk through ``denoised_root``.

    Args:
        noisy_paths: relative paths below the noisy root; suffixes do not matter.
        denoised_root: root of the denoised images.

    Raises:
        MissingFolderError: ``denoised_root`` does not exist or holds no images.
        PairError: twins are missing; the first five are named.
    """
    present = {stem_of(path) for path in list_images(denoised_root, what="denoised folder")}
    total, missing = 0, []
    for path in noisy_paths:
        total += 1
        if stem_of(path) not in present:
            missing.append(path)
    if missing:
        raise PairError.missing(denoised_root, missing, total)
