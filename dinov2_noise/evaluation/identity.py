"""What tells weights and images from others, whatever their paths are called."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dinov2_noise import data
from dinov2_noise.data.tar_index import find_shards
from dinov2_noise.decoding import DTYPE_RANGE
from dinov2_noise.errors import MissingFolderError

_READ_IMAGES, _MEASURED_IMAGES = 16, 512


def file_hash(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file's content.

    Raises:
        MissingFolderError: there is no such file.
    """
    if not path.is_file():
        raise MissingFolderError(f"file {path} does not exist: check the path")
    status = path.stat()
    return _hash(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _hash(path: Path, _size: int, _time: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:16]


def dataset_identity(text: str) -> dict[str, Any]:
    """Number of images, hash of their classes and of some of them, and what is done to them on the fly.

    Of 512 images, evenly spread, path and size in bytes are looked at, of 16 all bytes: enough to tell a set from one
    that was written again, not from one in which a few files were exchanged.

    Two folders with the same images in the same order have the same identity.
    """
    spec = data.parse_dataset_string(text)
    dataset: Any = data.make(text)
    digest = hashlib.sha256()
    targets = dataset.get_targets()
    digest.update(b"" if targets is None else np.asarray(targets, dtype="<i8").tobytes())
    for index in _spread(len(dataset), _MEASURED_IMAGES):
        # Seeds of noise and corruption come from the path.
        path = dataset.relative_path(index)
        file = spec.root / path
        # What lies in a tar shard has no file of its own.
        size = file.stat().st_size if file.is_file() else len(dataset.get_image_data(index))
        digest.update(f"{path} {size}".encode("utf-8", "surrogateescape"))
    for index in _spread(len(dataset), _READ_IMAGES):
        digest.update(hashlib.sha256(dataset.get_image_data(index)).digest())
    found = {"n_images": len(dataset), "hash": digest.hexdigest()[:16]}
    if spec.noise is not None:
        found["noise"] = f"{spec.noise.name},seed={spec.noise_seed}"
    if spec.values != DTYPE_RANGE:
        found["range"] = spec.values.name
    if spec.full_depth:
        found["depth"] = "full"
    if spec.corruption is not None:
        size = spec.corruption_size or "full"
        found["corruption"] = f"{spec.corruption.label},seed={spec.corruption_seed},size={size}"
    return found


def files_state(text: str) -> str:
    """Hash of path, size and time of change of every file of a data set; of images in tar shards, of the shards.

    Unlike `dataset_identity` it tells that a single image was exchanged, and it is another one for a copy of the set.
    """
    spec = data.parse_dataset_string(text)
    dataset: Any = data.make(text)
    digest, in_shards = hashlib.sha256(), False
    for path in map(dataset.relative_path, range(len(dataset))):
        state = _state(spec.root / path)
        in_shards |= state is None
        digest.update(f"{path} {state}\n".encode("utf-8", "surrogateescape"))
    if in_shards:
        states = [(shard, _state(spec.root / shard)) for shard in find_shards(spec.root)]
        digest.update(repr(states).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _state(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, status.st_mtime_ns


def _spread(n_all: int, n_wanted: int) -> list[int]:
    return [int(index) for index in np.linspace(0, n_all - 1, min(n_wanted, n_all))]
