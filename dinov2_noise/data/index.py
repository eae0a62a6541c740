"""ImageNet-style metadata for any labelled image tree: what DINOv2's own ``ImageNet`` reads, and the paths.

Layout expected: ``ROOT/{train,val,test}/<class>/…images``, any of the three, any suffix, any file names; a ``test``
folder may also hold its images directly, without labels. ``ROOT/labels.txt`` (rows ``class_id,name``) is optional.

Written per split, here for TRAIN, n images and c classes:

=======================  ==========================================================================================
``entries-TRAIN.npy``      (n,) records (actual_index u4, class_index u4, class_id U, class_name U), DINOv2's format
``class-ids-TRAIN.npy``    (c,) U, by class index
``class-names-TRAIN.npy``  (c,) U, by class index
``paths-TRAIN.npy``        (n,) S, UTF-8 paths relative to ROOT: ours, so that file names need not be ImageNet's
=======================  ==========================================================================================
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.strings import SPLITS
from dinov2_noise.errors import MetadataError, MissingFolderError
from dinov2_noise.files import IMAGE_SUFFIXES, atomic_path, list_images
from dinov2_noise.noise.folder import LABELS_NAME
from dinov2_noise.progress import track

# DINOv2's mark of an image without label; a class index never gets there.
UNLABELLED = 2**32 - 1


def default_extra(root: Path) -> Path:
    """Where the metadata of ``root`` are unless said otherwise: ``<root>-extra``, beside it."""
    absolute = Path(os.path.abspath(root))
    return absolute.with_name(absolute.name + "-extra")


def build_index(root: Path, extra: Path | None = None, progress: bool = True) -> dict[str, int]:
    """Write the metadata of all splits of ``root`` to ``extra``.

    Class indices follow the sorted names of the class folders, as in torchvision's ``ImageFolder``: those of ``train``
    for every split, or, without ``train``, those of all splits together.

    Args:
        root: the dataset's root.
        extra: where to write; default :func:`default_extra`.
        progress: show a bar on standard error.

    Returns:
        Number of images per split, such as ``{"TRAIN": 2000, "VAL": 500}``.

    Raises:
        MissingFolderError: ``root`` is missing, or has none of the three folders, or a class folder is empty.
        MetadataError: images outside of class folders, a class that ``labels.txt`` or ``train`` lacks, or a
            ``labels.txt`` that cannot be read.
    """
    extra = default_extra(root) if extra is None else extra
    splits = {split: _class_folders(root / split.lower()) for split in _present_splits(root)}
    classes = _shared_classes(root, splits)
    names = _class_names(root, classes)
    counts = {}
    for split, folders in splits.items():
        paths = _list_split(root, split, folders, progress=progress)
        entries = _entries(paths, classes=classes, names=names, labelled=bool(folders))
        _save(extra / f"entries-{split}.npy", entries)
        if folders:
            _save(extra / f"class-ids-{split}.npy", np.array(classes))
            _save(extra / f"class-names-{split}.npy", np.array([names[class_id] for class_id in classes]))
        _save(extra / f"paths-{split}.npy", encode_paths(paths))
        counts[split] = len(paths)
    return counts


def encode_paths(paths: Sequence[str]) -> NDArray[np.bytes_]:
    """Relative paths as one (n,) array of bytes, which workers share and map; read with :func:`decode_path`."""
    return np.array([path.encode("utf-8", "surrogateescape") for path in paths])


def decode_path(path: bytes) -> str:
    """One element of :func:`encode_paths` as text."""
    return path.decode("utf-8", "surrogateescape")


def _present_splits(root: Path) -> list[str]:
    if not root.is_dir():
        raise MissingFolderError(f"dataset root {root} does not exist: check the path")
    present = [split for split in SPLITS if (root / split.lower()).is_dir()]
    if not present:
        raise MissingFolderError(
            f"{root} has no folder train, val or test: expected {root}/train/<class>/<image> and the like "
            f"(for a folder without classes no index is needed: use ImageFolder:root={root})"
        )
    return present


def _class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders; empty for a ``test`` folder that holds its images directly."""
    folders, stray = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                stray.append(entry.name)
    if stray and (folders or folder.name != "test"):
        raise MetadataError(
            f"{folder / min(stray)} lies outside of a class folder: move it to {folder}/<class>/ "
            "(for images without classes use ImageFolder:root=…, which needs no index)"
        )
    if not folders and not stray:
        raise MissingFolderError(f"{folder} holds neither class folders nor images")
    return sorted(folders)


def _shared_classes(root: Path, splits: Mapping[str, Sequence[str]]) -> list[str]:
    if "TRAIN" not in splits:
        return sorted({class_id for folders in splits.values() for class_id in folders})
    known = set(splits["TRAIN"])
    for split, folders in splits.items():
        unknown = [class_id for class_id in folders if class_id not in known]
        if unknown:
            raise MetadataError(
                f"{root / split.lower() / unknown[0]} is a class that {root / 'train'} lacks "
                f"({len(unknown)} such): every class must have training images"
            )
    return list(splits["TRAIN"])


def _class_names(root: Path, classes: Iterable[str]) -> dict[str, str]:
    path = root / LABELS_NAME
    if not path.is_file():
        return {class_id: class_id for class_id in classes}
    labels = read_labels(path)
    for class_id in classes:
        if class_id not in labels:
            raise MetadataError(f"class folder {class_id} is not in {path}: add a row `{class_id},name`")
    return labels


def read_labels(path: Path) -> dict[str, str]:
    """Class ids and their names from ``labels.txt``, rows ``class_id,name``.

    Raises:
        MetadataError: it cannot be read, or a row has no name.
    """
    labels = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if len(row) == 1:
                    raise MetadataError(f"row {number} of {path} is {row[0]!r}: expected `class_id,name`")
                if row:
                    # A name may hold commas without being quoted.
                    labels[row[0].strip()] = ",".join(row[1:]).strip()
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise MetadataError(f"cannot read {path}: {cause}; expected UTF-8 text with rows `class_id,name`") from cause
    return labels


def _list_split(root: Path, split: str, folders: Sequence[str], *, progress: bool) -> list[str]:
    """Relative paths, class after class: not one sorted list, because "a-b/" sorts before "a/"."""
    directory = split.lower()
    if not folders:
        return [f"{directory}/{name}" for name in list_images(root / directory)]
    shown: Iterable[str] = folders
    if progress:
        shown = track(folders, total=len(folders), description=f"index {split} (classes)")
    return [
        f"{directory}/{class_id}/{name}"
        for class_id in shown
        for name in list_images(root / directory / class_id, what="class folder")
    ]


def _entries(
    paths: Sequence[str], *, classes: Sequence[str], names: Mapping[str, str], labelled: bool
) -> NDArray[np.void]:
    index_of = {class_id: index for index, class_id in enumerate(classes)}
    rows: list[tuple[int, int, str, str]] = []
    for number, path in enumerate(paths):
        class_id = path.split("/")[1] if labelled else ""
        class_index = index_of[class_id] if labelled else UNLABELLED
        rows.append((_actual_index(path, number), class_index, class_id, names[class_id] if labelled else ""))
    dtype = [
        ("actual_index", "<u4"),
        ("class_index", "<u4"),
        ("class_id", f"U{_longest(row[2] for row in rows)}"),
        ("class_name", f"U{_longest(row[3] for row in rows)}"),
    ]
    return np.array(rows, dtype=dtype)


def _actual_index(path: str, number: int) -> int:
    """The integer that ends the stem after its last underscore, ``n01440764_18.JPEG`` → 18; else the running number."""
    _, underscore, tail = PurePosixPath(path).stem.rpartition("_")
    usable = underscore and tail.isascii() and tail.isdigit() and int(tail) < 2**32
    return int(tail) if usable else number


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)
