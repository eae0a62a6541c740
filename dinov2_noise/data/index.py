"""ImageNet-style metadata for any labelled image tree: what DINOv2's own ``ImageNet`` reads, and the paths.

Layout expected: ``ROOT/{train,val,test}/<class>/…images``, any of the three, any suffix, any file names; a ``test``
folder may also hold its images directly, without labels. ``ROOT/labels.txt`` (rows ``class_id,name``) is optional. The
files written are described in `dinov2_noise.data.metadata`.

The folders are listed first, by threads, into one text file, ``listing.txt``; the metadata are made from that file,
line by line. So memory does not grow with the number of images, and another run may start from the listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dinov2_noise.data.labels import class_names, shared_classes
from dinov2_noise.data.listing import WALKERS, ordered, read_folder, written
from dinov2_noise.data.metadata import (
    LISTING_NAME,
    UNLABELLED,
    default_extra,
    encode_path,
    entries_dtype,
    replaced,
    write_header,
)
from dinov2_noise.data.strings import SPLITS
from dinov2_noise.data.survey import Entry, Survey, entries_of, survey
from dinov2_noise.errors import ConfigError, MetadataError, MissingFolderError
from dinov2_noise.files import atomic_path, list_images, remove_leftover
from dinov2_noise.progress import track

_BLOCK = 4096  # images that are in memory at once


def build_index(
    root: Path,
    extra: Path | None = None,
    progress: bool = True,
    *,
    workers: int = WALKERS,
    listing: Path | None = None,
) -> dict[str, int]:
    """Write the metadata of all splits of ``root`` to ``extra``.

    Class indices follow the sorted names of the class folders, as in torchvision's ``ImageFolder``: those of ``train``
    for every split, or, without ``train``, those of all splits together. Old metadata stay until all new ones are
    there. The same images give the same files, whatever ``workers`` and ``listing`` are.

    Args:
        root: the dataset's root.
        extra: where to write; default :func:`default_extra`.
        progress: show a bar on standard error.
        workers: threads that read folders.
        listing: text file of the images' paths relative to ``root``, one a line, which is believed; by default the
            folders are read. In the order of an earlier ``listing.txt`` it is never in memory as a whole.

    Returns:
        Number of images per split, such as ``{"TRAIN": 2000, "VAL": 500}``.

    Raises:
        MissingFolderError: ``root`` is missing, or has none of the three folders, or a class folder is empty.
        MetadataError: images outside of class folders, a class that ``labels.txt`` or ``train`` lacks, a
            ``labels.txt`` or ``listing`` that cannot be read, or an image that stands twice in it.
        ConfigError: there is no worker.
        WriteError: a file cannot be written.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}: it must be at least 1")
    if not root.is_dir():
        raise MissingFolderError(f"dataset root {root} does not exist: check the path")
    extra = default_extra(root) if extra is None else extra
    _remove_leftovers(extra)
    images = _scanned(root, workers, progress) if listing is None else partial(entries_of, listing, root)
    with atomic_path(extra / LISTING_NAME) as sorted_listing:
        splits = _list(images, sorted_listing, root)
        classes = shared_classes(root, {split: seen.class_ids for split, seen in splits.items()})
        names = class_names(root, classes)
        counts = {split: seen.count for split, seen in splits.items()}
        with replaced(extra, [name for split in splits for name in _file_names(split, splits)], counts) as paths:
            writer = _Writer(paths, splits, classes, names)
            with sorted_listing.open("rb") as lines:
                writer.write(lines, progress=progress and listing is not None)
    return counts


def _remove_leftovers(extra: Path) -> None:
    if extra.is_dir():
        for path in extra.iterdir():
            remove_leftover(path)


def _list(images: Callable[[], Iterable[Entry]], destination: Path, root: Path) -> dict[str, Survey]:
    """Write the listing, in order; what is in it."""
    for ordered_images in (images, lambda: sorted(images())):
        with destination.open("wb") as file:
            found = survey(_recorded(ordered_images(), file), root)
        if found is not None:
            return found
    raise AssertionError("sorted images are in order")


def _recorded(images: Iterable[Entry], file: BinaryIO) -> Iterator[Entry]:
    for image in images:
        file.write(encode_path(written(image[2])) + b"\n")
        yield image


def _scanned(root: Path, workers: int, progress: bool) -> Callable[[], Iterator[Entry]]:
    """The images below ``root``, in order: class after class, because "a-b/" sorts before "a/".

    Raises:
        MissingFolderError, MetadataError: for what can be told before the long part.
    """
    splits = {split: _class_folders(root / split.lower()) for split in _present_splits(root)}
    class_names(root, shared_classes(root, splits))

    def images() -> Iterator[Entry]:
        for split, folders in splits.items():
            listed = ordered(partial(_images_of_class, root / split.lower()), folders or [""], workers)
            if progress and folders:
                listed = track(listed, total=len(folders), description=f"index {split} (classes)")
            number = SPLITS.index(split)
            for class_id, names in zip(folders or [""], listed, strict=True):
                prefix = f"{split.lower()}/{class_id}/" if class_id else f"{split.lower()}/"
                for name in names:
                    yield number, class_id, f"{prefix}{name}"

    return images


def _images_of_class(folder: Path, class_id: str) -> list[str]:
    return list_images(folder / class_id, what="class folder")


def _present_splits(root: Path) -> list[str]:
    present = [split for split in SPLITS if (root / split.lower()).is_dir()]
    if not present:
        raise MissingFolderError(
            f"{root} has no folder train, val or test: expected {root}/train/<class>/<image> and the like "
            f"(for a folder without classes no index is needed: use ImageFolder:root={root})"
        )
    return present


def _class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders; empty for a ``test`` folder that holds its images directly."""
    stray, folders = read_folder(folder, "")
    if stray and (folders or folder.name != "test"):
        raise MetadataError(
            f"{folder / stray[0]} lies outside of a class folder: move it to {folder}/<class>/ "
            "(for images without classes use ImageFolder:root=…, which needs no index)"
        )
    if not folders and not stray:
        raise MissingFolderError(f"{folder} holds neither class folders nor images")
    return folders


def _file_names(split: str, splits: Mapping[str, Survey]) -> list[str]:
    kinds = ("class-ids", "class-names") if splits[split].class_ids else ()
    return [f"{kind}-{split}.npy" for kind in ("entries", *kinds, "paths")]


class _Writer:
    """Writes the arrays of all splits, some thousand images at a time."""

    def __init__(
        self, paths: Mapping[str, Path], splits: Mapping[str, Survey], classes: Sequence[str], names: Mapping[str, str]
    ) -> None:
        self._paths = paths
        self._splits = splits
        self._classes = classes
        self._names = names
        self._index_of = {class_id: index for index, class_id in enumerate(classes)}

    def write(self, lines: BinaryIO, *, progress: bool) -> None:
        """``lines``: the paths, in order, a line each."""
        for split, seen in self._splits.items():
            if seen.class_ids:
                np.save(self._paths[f"class-ids-{split}.npy"], np.array(self._classes))
                names = np.array([self._names[class_id] for class_id in self._classes])
                np.save(self._paths[f"class-names-{split}.npy"], names)
            classes: Iterable[tuple[str, int]] = seen.per_class.items()
            if progress and seen.class_ids:
                classes = track(classes, total=len(seen.per_class), description=f"index {split} (classes)")
            self._write_split(split, seen, classes, lines)

    def _write_split(self, split: str, seen: Survey, classes: Iterable[tuple[str, int]], lines: BinaryIO) -> None:
        entries_path, paths_path = (self._paths[f"{kind}-{split}.npy"] for kind in ("entries", "paths"))
        dtype, path_dtype = entries_dtype(seen.class_ids, self._names), np.dtype(f"S{seen.longest_path}")
        with entries_path.open("wb") as entries, paths_path.open("wb") as paths:
            write_header(entries, dtype, seen.count)
            write_header(paths, path_dtype, seen.count)
            first = 0
            for class_id, count in classes:
                for done in range(0, count, _BLOCK):
                    block = [line[:-1] for line in islice(lines, min(_BLOCK, count - done))]
                    entries.write(self._entries(block, first + done, class_id, dtype).tobytes())
                    paths.write(np.array(block, dtype=path_dtype).tobytes())
                first += count

    def _entries(
        self, paths: Sequence[bytes], first: int, class_id: str, dtype: np.dtype[np.void]
    ) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Of images of one class; ``first``: number of the first one in its split."""
        entries = np.empty(len(paths), dtype)
        entries["actual_index"] = [_actual_index(path, number) for number, path in enumerate(paths, start=first)]
        entries["class_index"] = self._index_of[class_id] if class_id else UNLABELLED
        if class_id:
            entries["class_id"], entries["class_name"] = class_id, self._names[class_id]
        return entries


def _actual_index(path: bytes, number: int) -> int:
    """The integer that ends the stem after its last underscore, ``n01440764_18.JPEG`` → 18; else the running number."""
    name = path[path.rfind(b"/") + 1 :]
    dot = name.rfind(b".")
    stem = name[:dot] if dot > 0 else name
    _, underscore, tail = stem.rpartition(b"_")
    usable = underscore and tail.isdigit() and int(tail) < 2**32
    return int(tail) if usable else number
