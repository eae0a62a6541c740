"""Ground truth of a retrieval set: the official files of Revisited Oxford and Paris, or any file of the same content.

A pickle (``gnd_roxford5k.pkl``) or JSON with ``imlist`` (names of the database), ``qimlist`` (names of the queries) and
``gnd`` (one mapping per query: ``easy``, ``hard``, ``junk``, each indices into ``imlist``; ``bbx``, the query's box).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dinov2_noise.errors import MetadataError, MissingFolderError
from dinov2_noise.evaluation.retrieval_pickle import read_plain
from dinov2_noise.evaluation.retrieval_scores import Indices, Relevance

OFFICIAL = ("roxford5k", "rparis6k")
_LABELS = ("easy", "hard", "junk")

Box = tuple[int, int, int, int]
"""Left, upper, right, lower in px of the image at its original size, as Pillow crops."""


@dataclass(frozen=True)
class GroundTruth:
    """A retrieval set.

    Attributes:
        path: the file. sha256: first 16 digits of its content's.
        images: names in the database. queries: names of the queries.
        boxes: per query, None without one. relevance: per query.
    """

    path: Path
    sha256: str
    images: Sequence[str]
    queries: Sequence[str]
    boxes: Sequence[Box | None]
    relevance: Sequence[Relevance]

    @property
    def asks_for_itself(self) -> int:
        """Queries that are an image of the database, too, and are no junk there: their first hit tells nothing."""
        places = {name: index for index, name in enumerate(self.images)}
        found = [(places.get(name), one) for name, one in zip(self.queries, self.relevance, strict=True)]
        return sum(place is not None and place not in one.junk for place, one in found)


def official_files(root: Path, dataset: str) -> tuple[Path, Path]:
    """Ground truth and images of an official set in the layout of its download script.

    Args:
        root: the folder with ``gnd_<dataset>.pkl`` and ``jpg/``, or the one above it.
        dataset: one of `OFFICIAL`.

    Returns:
        The ground-truth file, and the folder it lies in.

    Raises:
        MissingFolderError: neither is there.
    """
    names = [f"gnd_{dataset}{suffix}" for suffix in (".pkl", ".json")]
    for folder in (root, root / dataset):
        for name in names:
            if (folder / name).is_file():
                return folder / name, folder
    raise MissingFolderError(
        f"{root} holds no {names[0]} (nor {names[1]}, nor a folder {dataset} with one): give the folder of the "
        "official files, with the images in jpg/; another set: --ground-truth FILE --images DIR"
    )


def read_ground_truth(path: Path) -> GroundTruth:
    """Read and check a ground-truth file.

    Raises:
        MissingFolderError: there is no such file.
        MetadataError: it is neither a plain pickle nor JSON, lacks a list, lists of one length differ, an index lies
            beyond the list of images, an image is in two lists of a query, or no query has a positive.
    """
    if not path.is_file():
        raise MissingFolderError(f"ground truth {path} does not exist: check the path")
    data = path.read_bytes()
    content = _content(data, path)
    try:
        lists = [content[key] for key in ("imlist", "qimlist", "gnd")]
    except (TypeError, KeyError, IndexError) as cause:
        raise MetadataError(
            f"{path} is no ground truth of retrieval: it must be a mapping with imlist, qimlist and gnd"
        ) from cause
    images, queries = (_names(path, key, value) for key, value in zip(("imlist", "qimlist"), lists, strict=False))
    gnd = lists[2]
    if not isinstance(gnd, Sequence) or len(gnd) != len(queries) or not all(isinstance(one, Mapping) for one in gnd):
        raise MetadataError(
            f"{path}: gnd must be one mapping for each of the {len(queries)} queries in qimlist, it has "
            f"{len(gnd) if isinstance(gnd, Sequence) else type(gnd).__name__}"
        )
    relevance = [_relevance(path, query, one, len(images)) for query, one in zip(queries, gnd, strict=True)]
    if not any(len(one.easy) or len(one.hard) for one in relevance):
        raise MetadataError(
            f"{path}: none of the {len(queries)} queries has a positive (easy or hard): there is nothing to be found"
        )
    boxes = [_box(path, query, one.get("bbx")) for query, one in zip(queries, gnd, strict=True)]
    return GroundTruth(path, hashlib.sha256(data).hexdigest()[:16], images, queries, boxes, relevance)


def _content(data: bytes, path: Path) -> Any:
    if data.lstrip()[:1] not in (b"{", b"["):
        return read_plain(data, str(path))
    try:
        return json.loads(data)
    except ValueError as cause:
        raise MetadataError(f"cannot read {path} as JSON: {cause}") from cause


def _names(path: Path, key: str, value: Any) -> list[str]:
    names = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) and name for name in names):
        raise MetadataError(f"{path}: {key} must be a list of names of images, with one at least")
    if key == "imlist" and len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise MetadataError(f"{path}: {double} stands twice in {key}: an image of the database has one place")
    return list(names)


def _relevance(path: Path, query: str, entry: Mapping[str, Any], n_images: int) -> Relevance:
    lists = {label: _indices(path, query, label, entry.get(label, ()), n_images) for label in _LABELS}
    together = np.concatenate(list(lists.values()))
    if len(np.unique(together)) != len(together):
        counts = np.bincount(together)
        raise MetadataError(
            f"{path}: query {query} has image {int(counts.argmax())} more than once in easy, hard and junk: an image "
            "is in one of them at most"
        )
    return Relevance(**lists)


def _indices(path: Path, query: str, label: str, values: Any, n_images: int) -> Indices:
    try:
        found = np.asarray(values)
        found = found.astype(np.int64) if found.size == 0 else found
    except (TypeError, ValueError, OverflowError) as cause:
        raise MetadataError(f"{path}: {label} of query {query} is no list of numbers") from cause
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise MetadataError(f"{path}: {label} of query {query} must be a list of whole numbers, indices into imlist")
    wrong = found[(found < 0) | (found >= n_images)]
    if len(wrong):
        raise MetadataError(
            f"{path}: {label} of query {query} has index {wrong[0]}, beyond the {n_images} images of imlist (which "
            "count from 0): the file belongs to another set, or is damaged"
        )
    return found.astype(np.int64)


def _box(path: Path, query: str, value: Any) -> Box | None:
    if value is None:
        return None
    try:
        left, upper, right, lower = (round(float(side)) for side in value)
    except (TypeError, ValueError, OverflowError) as cause:
        raise MetadataError(f"{path}: bbx of query {query} must be four numbers: left, upper, right, lower") from cause
    if not (left < right and upper < lower):
        raise MetadataError(
            f"{path}: bbx of query {query}, {left}, {upper}, {right}, {lower}, is empty: give left, upper, right, lower"
        )
    return left, upper, right, lower
