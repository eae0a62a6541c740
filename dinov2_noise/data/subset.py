"""Parts of a data set: classes or images that a text file names, or a fraction of every class. No file is copied.

A line of the file is the id of a class (its folder's name) or the path of an image relative to the root, with or
without suffix; in a data set without classes every line is a path. Lines of both kinds may stand together.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.listing import read_lines, relative_to_root
from dinov2_noise.data.metadata import UNLABELLED
from dinov2_noise.data.options import Subset
from dinov2_noise.data.pairs import stem_of
from dinov2_noise.errors import MetadataError
from dinov2_noise.files import is_image_name

_CANDIDATES = 5000  # names among which the nearest to a wrong one is looked for


class Selection(NamedTuple):
    """Which images of a data set are used.

    ``rows``: (m,) their numbers in the whole set, ascending; ``class_ids``: their classes by new index, in sorted order
    where classes were chosen; ``new_index``: (c,) new class index by old one, `UNLABELLED` for classes left out.
    """

    rows: NDArray[np.uint32]
    class_ids: list[str]
    new_index: NDArray[np.uint32]


@dataclass(frozen=True)
class Whole:
    """The data set to choose from.

    Attributes:
        root: below which paths lie.
        what: what the images are called in errors, such as ``split TRAIN of /data``.
        targets: (n,) class indices; None without classes.
        class_ids: by class index; empty without classes.
        paths: a new iterator over the n listed paths.
        prefix: of all paths, such as ``train/``. The class is the folder after it; lines with another of ``prefixes``
            are of other splits.
        prefixes: of all splits.
        is_numbered: classes are numbers that have nothing to do with paths. A line that is one of them is a class, any
            other a path; the images' own classes are added to those of the file.
    """

    root: Path
    what: str
    targets: NDArray[np.uint32] | None
    class_ids: Sequence[str]
    paths: Callable[[], Iterable[str]]
    prefix: str = ""
    prefixes: Collection[str] = ("",)
    is_numbered: bool = False


def select(subset: Subset, whole: Whole) -> Selection:
    """The images of ``subset``.

    Raises:
        MissingFolderError: its file does not exist.
        MetadataError: a line names no class and no image, or one that another line names, or no image is left.
    """
    if subset.file is None:
        rows = _fraction_rows(subset, whole)
        return Selection(rows, list(whole.class_ids), np.arange(len(whole.class_ids), dtype=np.uint32))
    named = _read(subset.file, whole)
    new_index = np.full(len(whole.class_ids), UNLABELLED, np.uint32)
    is_chosen = np.zeros(len(whole.class_ids), bool)
    is_chosen[[whole.class_ids.index(class_id) for class_id in named.classes]] = True
    rows = np.empty(0, np.int64) if whole.targets is None else np.flatnonzero(is_chosen[whole.targets]).astype(np.int64)
    if named.stems:
        rows = np.union1d(rows, _rows_of(named.stems, subset.file, whole))
    if not len(rows):
        raise MetadataError(f"{subset.file} names no image of {whole.what}: the subset is empty")
    if whole.is_numbered and whole.targets is not None:
        named.classes_of_paths.update(whole.class_ids[index] for index in np.unique(whole.targets[rows]))
    classes = sorted({*named.classes, *named.classes_of_paths}, key=int if whole.is_numbered else None)
    for index, class_id in enumerate(classes):
        new_index[whole.class_ids.index(class_id)] = index
    return Selection(rows.astype(np.uint32), classes, new_index)


@dataclass
class _Named:
    """What a file names: ``stems`` of this split's images, and the lines they stand in."""

    classes: dict[str, int]
    stems: dict[str, int]
    classes_of_paths: set[str]


def _read(file: Path, whole: Whole) -> _Named:
    known, named = set(whole.class_ids), _Named({}, {}, set())
    others: dict[str, int] = {}
    for number, text in read_lines(file):
        name = text.strip()
        if name in known if whole.is_numbered else known and "/" not in name.rstrip("/"):
            name = name.rstrip("/")
            if name not in known:
                raise MetadataError(f"line {number} of {file}: {_no_class(name, whole)}")
            _add(named.classes, name, number, file)
            continue
        path = relative_to_root(text, whole.root)
        stem = stem_of(path) if is_image_name(path) else path
        is_own = path.startswith(whole.prefix)
        if known and not whole.is_numbered:
            named.classes_of_paths.add(_class_of(path, f"line {number} of {file}", known, whole))
        _add(named.stems if is_own else others, stem, number, file)
    return named


def _add(found: dict[str, int], name: str, number: int, file: Path) -> None:
    before = found.setdefault(name, number)
    if before != number:
        raise MetadataError(f"{name} stands twice in {file}, in lines {before} and {number}: take one out")


def _class_of(path: str, line: str, known: Collection[str], whole: Whole) -> str:
    prefix = next((prefix for prefix in whole.prefixes if path.startswith(prefix)), None)
    class_id = None if prefix is None else path[len(prefix) :].partition("/")[0]
    if class_id is None or class_id not in known:
        wrong = path if class_id is None else class_id
        raise MetadataError(f"{line}, {path}: {_no_class(wrong, whole)}")
    return class_id


def _no_class(name: str, whole: Whole) -> str:
    nearest = get_close_matches(name, whole.class_ids, n=1, cutoff=0.0)
    return f"{name} is no class of {whole.what}; the nearest of its {len(whole.class_ids)} is {nearest[0]}"


def _rows_of(stems: dict[str, int], file: Path, whole: Whole) -> NDArray[np.int64]:
    rows, seen = [], set()
    for row, path in enumerate(whole.paths()):
        stem = stem_of(path)
        if stem in stems:
            rows.append(row)
            seen.add(stem)
    missing = next((stem for stem in stems if stem not in seen), None)
    if missing is not None:
        n_missing = len(stems) - len(seen)
        raise MetadataError(
            f"line {stems[missing]} of {file}, {missing}: no such image is listed in {whole.what}"
            f"{_nearest(missing, whole)} ({n_missing} such {'line' if n_missing == 1 else 'lines'})"
        )
    return np.array(rows, np.int64)


def _nearest(stem: str, whole: Whole) -> str:
    folder = posixpath.dirname(stem)
    neighbours: Iterator[str] = (path for path in whole.paths() if posixpath.dirname(path) == folder)
    nearest = get_close_matches(stem, list(islice(neighbours, _CANDIDATES)), n=1, cutoff=0.0)
    return f"; the nearest in that folder is {nearest[0]}" if nearest else ": there is no such folder, or it has none"


def _fraction_rows(subset: Subset, whole: Whole) -> NDArray[np.uint32]:
    """The images of each class with the smallest keys; so a larger fraction holds a smaller one.

    Keys come from paths without suffix: noisy copies of a folder have the same part.
    """
    assert subset.fraction is not None
    keys = np.fromiter((_key(stem_of(path), subset.seed) for path in whole.paths()), np.uint64)
    groups = np.zeros(len(keys), np.uint32) if whole.targets is None else np.asarray(whole.targets)
    order = np.lexsort((keys, groups))
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    wanted = np.maximum(np.rint(counts * subset.fraction), 1)
    rank = np.arange(len(keys)) - np.repeat(starts, counts)
    return np.sort(order[rank < np.repeat(wanted, counts)]).astype(np.uint32)


def _key(stem: str, seed: int) -> int:
    text = f"{stem}_{seed}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:8], "big")
