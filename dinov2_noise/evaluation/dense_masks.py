"""Masks that give each pixel of an image its class: found beside their images, read, and looked through once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.decoding import image_size
from dinov2_noise.errors import ConfigError, ImageError, MetadataError, MissingFolderError
from dinov2_noise.evaluation.dense_scores import Counts
from dinov2_noise.files import find_files, list_images
from dinov2_noise.progress import track

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".bmp", ".gif")
_LOSSY = (".jpg", ".jpeg", ".webp")
_MODES = ("P", "L", "1", "I", "I;16")
_NAMED = 5
_MOST_CLASSES = 4096

Mask = NDArray[np.integer]


@dataclass(frozen=True)
class Labelled:
    """An image and its mask. ``relative_path``: of the image below its root; the seed of its noise comes from it."""

    root: Path
    relative_path: str
    mask: Path

    @property
    def image(self) -> Path:
        return self.root / self.relative_path


def find_labelled(images: Path, masks: Path, only: Path | None = None) -> list[Labelled]:
    """Images and their masks, which have the same path but for the suffix.

    Args:
        images, masks: the two folders.
        only: a text file with one relative path per line, suffix or not, of the images that are used; None: all.

    Raises:
        MissingFolderError: a folder or the list does not exist, or the folder holds no images.
        MetadataError: images have no mask, or are listed and not there; their number and the first five.
    """
    by_stem = {_stem(path): path for path in list_images(images, what="image folder")}
    if not masks.is_dir():
        raise MissingFolderError(f"mask folder {masks} does not exist: check the path")
    found = {_stem(path): path for path in find_files(masks, lambda name: name.lower().endswith(MASK_SUFFIXES))}
    wanted = list(by_stem) if only is None else _listed(only, by_stem, images)
    missing = [by_stem[stem] for stem in wanted if stem not in found]
    if missing:
        lossy = next(find_files(masks, lambda name: name.lower().endswith(_LOSSY)), None)
        hint = f"; {lossy} and others there are of a format that changes values" if lossy else ""
        raise MetadataError(
            f"{len(missing)} of {len(wanted)} images have no mask in {masks}{hint}:{_shown(missing)}\nA mask has the "
            f"path of its image and one of {', '.join(MASK_SUFFIXES)}; a list of the images to use: --train-list, "
            "--val-list"
        )
    return [Labelled(images, by_stem[stem], masks / found[stem]) for stem in wanted]


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.rpartition(".")[0]


def _listed(only: Path, by_stem: dict[str, str], images: Path) -> list[str]:
    try:
        lines = [line.strip() for line in only.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeError) as cause:
        raise MissingFolderError(f"cannot read the list {only}: {cause}") from cause
    names = [line.removeprefix("./") for line in lines if line]
    stems = [name if name in by_stem else _stem(name) for name in names]
    absent = [name for name, stem in zip(names, stems, strict=True) if stem not in by_stem]
    if absent or not names:
        raise MetadataError(
            f"{len(absent)} of {len(names)} lines of {only} name no image in {images}:{_shown(absent)}"
            if names
            else f"the list {only} is empty"
        )
    return list(dict.fromkeys(stems))


def _shown(names: Sequence[str]) -> str:
    more = f"\n  … and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "".join(f"\n  {name}" for name in names[:_NAMED]) + more


def read_mask(path: Path) -> Mask:
    """The classes of an image's pixels (H, W): of a palette image its indices, of gray or NPY its values.

    Raises:
        ImageError: it cannot be read, has colours in place of classes, or numbers that are not whole or below 0.
    """
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _picture(path)
    except ImageError:
        raise
    except Exception as cause:  # Pillow and NumPy raise what they like on damaged files
        raise ImageError(path, cause) from cause
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise ImageError(
            path, f"a mask must be whole numbers of shape (H, W), this is {values.dtype} of shape {values.shape}"
        )
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.size and int(values.min()) < 0:
        raise ImageError(path, f"it has the class {int(values.min())}: classes count from 0")
    return values


def _picture(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as image:
        if image.mode not in _MODES:
            raise ImageError(
                path,
                f"it is {image.mode}, not a mask of class indices (gray or palette): turn its colours into numbers "
                "from 0",
            )
        return np.asarray(image)


@dataclass(frozen=True)
class Survey:
    """What some masks hold: labelled pixels per class (C,), and one mask that has the highest."""

    pixels: Counts
    highest_in: Path


def survey(labelled: Sequence[Labelled], ignore: int | None, *, threads: int, description: str) -> Survey:
    """Look through masks: their sizes are their images', their values classes.

    Raises:
        ImageError: a mask or an image cannot be read, or has more than 4096 classes.
        MetadataError: a mask has another size than its image, or there is no labelled pixel.
    """

    def look(one: Labelled) -> Counts:
        mask, size = read_mask(one.mask), image_size(one.image)
        if mask.shape != size[::-1]:
            raise MetadataError(
                f"mask {one.mask} is {mask.shape[1]}x{mask.shape[0]} px, its image {one.image} {size[0]}x{size[1]}: a "
                "mask has a value for each pixel of its image"
            )
        values = mask.ravel() if ignore is None else mask[mask != ignore]
        if values.size and int(values.max()) >= _MOST_CLASSES:
            raise ImageError(one.mask, f"it has the class {int(values.max())}; at most {_MOST_CLASSES} are counted")
        return np.bincount(values.astype(np.int64))

    pixels, highest_in = np.zeros(0, np.int64), labelled[0].mask
    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = track(pool.map(look, labelled), total=len(labelled), description=description)
        for one, counts in zip(labelled, found, strict=True):
            if len(counts) > len(pixels):
                pixels, highest_in = np.pad(pixels, (0, len(counts) - len(pixels))), one.mask
            pixels[: len(counts)] += counts
    if not pixels.sum():
        raise MetadataError(
            f"no pixel of the {len(labelled)} masks beside {labelled[0].mask} has a class: all are {ignore}"
        )
    return Survey(pixels, highest_in)


def class_names(path: Path | None, train: Survey, val: Survey, ignore: int | None) -> list[str]:
    """Names of the classes: the lines of a file, or the numbers that the training masks go up to.

    Raises:
        ConfigError: there is no such file, or it is empty or not text.
        MetadataError: a mask has a class beyond them; names it.
    """
    if path is None:
        names = [str(number) for number in range(len(train.pixels))]
        limit = f"the training masks go up to {len(names) - 1} only; name all classes with --classes FILE"
    else:
        names = _lines(path)
        limit = f"{path} names {len(names)}, from 0 to {len(names) - 1}"
    for found in (train, val):
        if len(found.pixels) > len(names):
            void = "no value is ignored" if ignore is None else f"the ignored value is {ignore}"
            raise MetadataError(
                f"mask {found.highest_in} has the class {len(found.pixels) - 1}: {limit}; {void} (--ignore)"
            )
    return names


def _lines(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as cause:
        raise ConfigError(f"--classes {path} cannot be read: {cause}") from cause
    if not names:
        raise ConfigError(f"--classes {path} is empty: one name per line, the first is that of class 0")
    return names
