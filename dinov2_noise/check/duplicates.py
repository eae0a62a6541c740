"""Images that are there more than once: the same bytes, or the same pixels in other files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.check.look import digest_of, head_of
from dinov2_noise.check.source import images_of
from dinov2_noise.check.tally import BAD, Tally, as_numbers
from dinov2_noise.data import DatasetSpec
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.noise.pool import stream_jobs

SPLITS = ("train", "val", "valid", "validation", "test")
_HEAD_BYTES = 2**16

Indices = NDArray[np.int64]
Groups = list[Indices]


@dataclass(frozen=True)
class Digester:
    """(index, digest) of an image's file, or of its first ``limit`` bytes; picklable."""

    spec: DatasetSpec
    limit: int | None

    def __call__(self, index: int) -> tuple[int, bytes]:
        images = images_of(self.spec)
        try:
            file = self.spec.root / images.relative_path(index)
            data = head_of(file, self.limit) if file.is_file() else images.get_image_data(index)[: self.limit]
        except (OSError, DinoNoiseError):
            return index, b""
        return index, digest_of(data)


class Duplicates(NamedTuple):
    """Groups of images; each holds indices in order.

    Attributes:
        exact: files with the same bytes.
        pixels: images with the same pixels, of which at least two files differ.
        leaked: of both, those with images in more than one split.
    """

    exact: Groups
    pixels: Groups
    leaked: Groups


def find_duplicates(tally: Tally, path_of: Callable[[int], str]) -> Duplicates:
    """Groups of equal images.

    Args:
        tally: with digests.
        path_of: the relative path of an image; only asked for duplicates.
    """
    exact = _groups(tally.bytes_digests, tally.size_bytes > 0)
    same = _groups(tally.pixels_digests, tally.state != BAD)
    pixels = [group for group in same if len(np.unique(tally.bytes_digests[group], axis=0)) > 1]
    leaked = [group for group in (*exact, *pixels) if len({split_of(path_of(int(i))) for i in group}) > 1]
    return Duplicates(exact, pixels, _without_parts(leaked))


def split_of(path: str) -> str:
    """``train`` of ``train/a/b.png``; empty where the first folder is no split's."""
    first = path.partition("/")[0].lower()
    return first if first in SPLITS and "/" in path else ""


def complete_digests(tally: Tally, spec: DatasetSpec, *, workers: int, progress: bool) -> None:
    """Digests of those files that were not read as a whole and may equal others: first by size, then by beginning."""
    if _known(tally.bytes_digests)[tally.size_bytes > 0].all():
        return
    heads = np.zeros_like(tally.bytes_digests)
    suspects = _shared(tally.size_bytes[:, None].astype(np.uint64), tally.size_bytes > 0)
    description = "compare" if progress else None
    for index, digest in stream_jobs(
        Digester(spec, _HEAD_BYTES), suspects.tolist(), workers=workers, description=description
    ):
        heads[index] = as_numbers(digest)
    keys = np.column_stack([tally.size_bytes.astype(np.uint64), heads])
    suspects = _shared(keys, _known(heads))
    suspects = suspects[~_known(tally.bytes_digests[suspects])]
    for index, digest in stream_jobs(Digester(spec, None), suspects.tolist(), workers=workers, description=description):
        tally.bytes_digests[index] = as_numbers(digest)


def _shared(keys: NDArray[np.uint64], chosen: NDArray[np.bool_]) -> Indices:
    groups = _groups(keys, chosen)
    return np.sort(np.concatenate(groups)) if groups else np.empty(0, np.int64)


def _known(digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.asarray(digests.any(axis=1))


def _groups(keys: NDArray[np.uint64], chosen: NDArray[np.bool_]) -> Groups:
    """Of the rows ``chosen`` whose key is not 0, the indices of those that share it with others."""
    members = np.flatnonzero(chosen & _known(keys))
    order = members[np.lexsort(keys[members].T)]
    new = np.any(keys[order][1:] != keys[order][:-1], axis=1)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    ends = np.concatenate([starts[1:], [len(order)]])
    shared = np.flatnonzero(ends - starts > 1)
    groups = [np.sort(order[starts[number] : ends[number]]) for number in shared]
    return sorted(groups, key=lambda group: int(group[0]))


def _without_parts(groups: Groups) -> Groups:
    """Without groups that lie within another: exact copies within a group of equal pixels."""
    sets = [frozenset(map(int, group)) for group in groups]
    kept: dict[int, int] = {}
    for number, members in sorted(enumerate(sets), key=lambda item: -len(item[1])):
        if not members & kept.keys():
            kept.update(dict.fromkeys(members, number))
    return [groups[number] for number in sorted(set(kept.values()))]
