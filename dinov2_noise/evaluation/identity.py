"""What tells weights and images from others, whatever their paths are called."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dinov2_noise import data
from dinov2_noise.errors import MissingFolderError

_SAMPLED_IMAGES = 16


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
    """Number of images, hash of their classes and of the bytes of some of them, and what is done to them on the fly.

    Two folders with the same images in the same order have the same identity.
    """
    spec = data.parse_dataset_string(text)
    dataset: Any = data.make(text)
    digest = hashlib.sha256()
    targets = dataset.get_targets()
    digest.update(b"" if targets is None else np.asarray(targets, dtype="<i8").tobytes())
    for index in np.linspace(0, len(dataset) - 1, min(_SAMPLED_IMAGES, len(dataset))).astype(int):
        # Seeds of noise and corruption come from the path.
        digest.update(dataset.relative_path(int(index)).encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(dataset.get_image_data(int(index))).digest())
    found = {"n_images": len(dataset), "hash": digest.hexdigest()[:16]}
    if spec.noise is not None:
        found["noise"] = f"{spec.noise.name},seed={spec.noise_seed}"
    if spec.corruption is not None:
        size = spec.corruption_size or "full"
        found["corruption"] = f"{spec.corruption.label},seed={spec.corruption_seed},size={size}"
    return found
