"""The sizes of many images, from their headers, kept beside a training so that its continuations need not read them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.denoise.images import Source
from dinov2_noise.errors import ImageError
from dinov2_noise.files import atomic_path

SIZES_NAME = ".sizes.npz"
_FEW = 2000  # are read faster than they are worth a file
_READERS = 16  # waiting for a network's disk takes longer than reading
_BLOCK, _PART = 4096, 64  # images: a job for each of a million at once would take a gigabyte

_Stamps = NDArray[np.int64]  # (n, 2): bytes and time of change in ns of each file; -1 where it cannot be seen
_Sizes = NDArray[np.int32]  # (n, 2): width and height in px; 0 where the header cannot be read


class Read(NamedTuple):
    """Sizes (width, height) in px by the image's number, and why others have none."""

    sizes: dict[int, tuple[int, int]]
    failures: list[ImageError]


def read_sizes(source: Source, indices: Sequence[int], cache: Path | None = None) -> Read:
    """Read the headers of some images; with ``cache``, only of those that changed since it was written.

    Raises:
        WriteError: the cache cannot be written.
    """
    names = _names_digest(source, indices)
    stamps, known = _load(cache, names, len(indices))
    now = np.full((len(indices), 2), -1, np.int64)
    sizes: dict[int, tuple[int, int]] = {}
    failures: list[ImageError] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(indices), _BLOCK):
            block = indices[start : start + _BLOCK]
            places = np.arange(start, start + len(block))
            if cache is not None:
                parts = [block[at : at + _PART] for at in range(0, len(block), _PART)]
                now[places] = np.concatenate(list(pool.map(partial(_stamps, source), parts)))
            changed = places[(now[places, 0] < 0) | (now[places] != stamps[places]).any(axis=1)]
            found = pool.map(partial(_read, source), [indices[place] for place in changed])
            for place, size in zip(changed, found, strict=True):
                if isinstance(size, ImageError):
                    failures.append(size)
                known[place] = (0, 0) if isinstance(size, ImageError) else size
            rows = zip(block, known[places].tolist(), strict=True)
            sizes.update((index, (width, height)) for index, (width, height) in rows if width)
    if cache is not None and len(indices) > _FEW:
        now[known[:, 0] == 0] = -1  # what could not be read is tried again
        _save(cache, names, now, known)
    return Read(sizes, failures)


def _read(source: Source, index: int) -> tuple[int, int] | ImageError:
    try:
        return source.size(index)
    except ImageError as failure:
        return failure


def _stamps(source: Source, indices: Sequence[int]) -> _Stamps:
    stamps = np.full((len(indices), 2), -1, np.int64)
    for row, index in enumerate(indices):
        with suppress(OSError):  # of a dataset whose images are no files
            status = os.stat(source.path(index))
            stamps[row] = status.st_size, status.st_mtime_ns
    return stamps


def _names_digest(source: Source, indices: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for index in indices:
        digest.update(source.names[index].encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _load(cache: Path | None, names: str, count: int) -> tuple[_Stamps, _Sizes]:
    try:
        if cache is not None:
            with np.load(cache, allow_pickle=False) as found:
                if str(found["names"]) == names and len(found["stamps"]) == len(found["sizes"]) == count:
                    return found["stamps"], found["sizes"]
    except (OSError, ValueError, KeyError, EOFError):  # none, or one that a power failure has spoilt
        pass
    return np.full((count, 2), -2, np.int64), np.zeros((count, 2), np.int32)


def _save(cache: Path, names: str, stamps: _Stamps, sizes: _Sizes) -> None:
    with atomic_path(cache) as temporary:
        np.savez(temporary, names=np.array(names), stamps=stamps, sizes=sizes)
