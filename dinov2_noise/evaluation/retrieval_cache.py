"""Features kept on disk in parts: an interrupted extraction continues, what does not fit any more is made again.

The name of a part is a hash of all that decides its content, so that parts of other weights, images or noises lie
beside each other. What cannot be read in full is made again: the files hold checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import MissingFolderError
from dinov2_noise.evaluation.retrieval_images import Picture
from dinov2_noise.files import atomic_path

PART_IMAGES = 256


@dataclass(frozen=True)
class Features:
    """Of N images.

    Attributes:
        tokens: (N, D), of unit length. colours: (N, C), the colour floor's, of unit length.
        snr_db: (N,) of their noise, NaN without.
    """

    tokens: NDArray[np.float32]
    colours: NDArray[np.float32]
    snr_db: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))


_NAMES = ("tokens", "colours", "snr_db")


class Extract(Protocol):
    """From parts, each the numbers of its images, to the features of each part, in order."""

    def __call__(self, parts: Sequence[Sequence[int]], /) -> Iterator[Features]: ...


@dataclass(frozen=True)
class FeatureCache:
    """``folder/<hash>.npz``, one file per 256 images.

    Attributes:
        identity: what decides the features beside the images: weights, noise, size, …; anything JSON can hold.
    """

    folder: Path
    pictures: Sequence[Picture]
    identity: Mapping[str, Any]

    def features(self, extract: Extract) -> Features:
        """Those of all images; what is not kept in full is extracted now.

        Raises:
            MissingFolderError: an image is gone.
            DinoNoiseError: ``extract`` failed; what it had made is kept.
        """
        numbers = range(len(self.pictures))
        parts = [numbers[start : start + PART_IMAGES] for start in numbers[::PART_IMAGES]]
        files = [self._file(part) for part in parts]
        kept = [_read(file, len(part)) for file, part in zip(files, parts, strict=True)]
        pending = [position for position, part in enumerate(kept) if part is None]
        made = extract([parts[position] for position in pending]) if pending else iter(())
        for position, part in zip(pending, made, strict=True):
            with atomic_path(files[position]) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **{name: getattr(part, name) for name in _NAMES})
            kept[position] = part
        return Features.joined([part for part in kept if part is not None])

    def _file(self, part: Sequence[int]) -> Path:
        content = [_stamp(self.pictures[index]) for index in part]
        text = json.dumps([dict(self.identity), content], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"


def _stamp(picture: Picture) -> list[Any]:
    """What tells an image from another, at its place or elsewhere, without reading it.

    The root: files without compression are of one size, and archives may give all of them one time. The time at which
    the file's entry changed: a copy can keep the time of its content, not this one.
    """
    try:
        status = picture.path.stat()
    except OSError as cause:
        raise MissingFolderError(f"image {picture.path} is gone: {cause.strerror}") from cause
    place = [os.path.abspath(picture.root), picture.relative_path, picture.box]
    return [*place, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(path: Path, n_images: int) -> Features | None:
    """A part; None where it is not there, damaged, or of another number of images."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            part = Features(*(content[name] for name in _NAMES))
    except Exception:  # whatever a damaged zip file leads to
        return None
    whole = all(len(getattr(part, name)) == n_images for name in _NAMES)
    return part if whole and np.isfinite(part.tokens).all() else None
