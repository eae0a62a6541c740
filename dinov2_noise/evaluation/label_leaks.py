"""The same image among those that are learned from and those that are tested on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinov2_noise import data
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.evaluation.label_sources import Indices, LabelSet


def leaks(train: LabelSet, val: LabelSet, folds: Sequence[tuple[Indices, Indices]]) -> list[tuple[str, str]]:
    """(validation path, training path) of images with the same bytes, as they are stored.

    Only files of equal size are read.

    Args:
        train, val: what is learned from and tested on; of a cross-validation the same object.
        folds: indices into both, see `Task.folds`.
    """
    same = train is val
    sizes = _sizes(val) if same else [*_sizes(train), *_sizes(val)]
    counts = Counter(sizes)
    ours, theirs = _digests(train, sizes, counts), [] if same else _digests(val, sizes[len(train) :], counts)
    found = []
    for fit, test in folds:
        known: dict[bytes, int] = {}
        for index in fit:
            known.setdefault(ours[index], int(index))
        for index in test:
            digest = (ours if same else theirs)[index]
            if digest and digest in known:
                found.append((val.paths[index], train.paths[known[digest]]))
    return found


def _sizes(part: LabelSet) -> list[int]:
    dataset = _Stored(part)
    return [dataset.size(index) for index in range(len(part))]


def _digests(part: LabelSet, sizes: Sequence[int], counts: Counter[int]) -> list[bytes]:
    """Of the images whose size another has; empty for the others."""
    dataset = _Stored(part)
    return [
        hashlib.sha256(dataset.bytes(index)).digest() if counts[sizes[index]] > 1 else b"" for index in range(len(part))
    ]


class _Stored:
    """Files of a set, as they are stored; members of tar shards as well."""

    def __init__(self, part: LabelSet) -> None:
        self._part = part
        self._dataset: Any = None if part.source.dataset is None else data.make(part.source.dataset)

    def size(self, index: int) -> int:
        file = self._file(index)
        return len(self.bytes(index)) if file is None else file.stat().st_size

    def bytes(self, index: int) -> bytes:
        file = self._file(index)
        return self._dataset.get_image_data(int(self._part.rows[index])) if file is None else file.read_bytes()

    def _file(self, index: int) -> Path | None:
        root, path = self._part.source.root, self._part.paths[index]
        found = find_twin(root, path)
        return None if found is None else root / found
