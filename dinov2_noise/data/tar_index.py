"""Where in tar shards the images lie, so that any of them is read at once: made by one pass, then kept in a file.

Members belong together by their *key*, the path up to the first dot of the file's name, as in webdataset:
``a/0001.jpg`` and ``a/0001.cls`` are an image and its class.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import MissingFolderError, ShardError, WriteError
from dinov2_noise.files import atomic_path, find_files, is_image_name
from dinov2_noise.progress import track

NO_TARGET = -1
_TARGET_SUFFIX = "cls"
_VERSION = 1


class Place(NamedTuple):
    """An image: its path in its shard, where its bytes lie there, and its class, or `NO_TARGET`."""

    path: str
    offset: int
    size: int
    target: int


def find_shards(root: Path) -> list[str]:
    """Relative POSIX paths of all ``.tar`` files below ``root``, sorted; links are followed as for folders of images.

    Raises:
        MissingFolderError: there is none, or a folder cannot be read.
    """
    try:
        found = sorted(find_files(root, _is_shard))
    except OSError as cause:
        raise MissingFolderError(f"dataset root {root} cannot be read: {cause}") from cause
    if not found:
        packed = next((path.name for path in root.rglob("*.t*gz")), None)
        way_out = f"; {packed} is compressed, and only plain ones can be read at any place: gunzip it" if packed else ""
        raise MissingFolderError(f"dataset root {root} holds no .tar shards{way_out}")
    return found


def _is_shard(name: str) -> bool:
    return name.endswith(".tar")


class TarIndex:
    """The images of all shards below ``root``, in the order of the shards and of their members.

    It is kept in ``folder`` and mapped into memory from there, never pickled; where that folder cannot be written, it
    is made anew each time. A shard of another size or time makes another index.

    Raises:
        ShardError: a shard is truncated or no tar, or its members make no images.
    """

    def __init__(self, root: Path, shards: Sequence[str], folder: Path) -> None:
        self.root = root
        self.shards = tuple(shards)
        self._path = folder / f"shards-{_fingerprint(root, shards)}.npy"
        self._kept: NDArray[np.void] | None = None
        if _load(self._path) is None:
            self._kept = _made(root, self.shards)
            try:
                with atomic_path(self._path) as temporary:
                    np.save(temporary, self._kept)
                self._kept = None
            except (OSError, WriteError):  # a read-only place: it is but a copy
                pass

    @cached_property
    def rows(self) -> NDArray[np.void]:
        """(n,) records (shard, offset, size, target, path)."""
        if self._kept is not None:
            return self._kept
        found = _load(self._path)
        return _made(self.root, self.shards) if found is None else found  # deleted since

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "rows"}

    def read(self, index: int) -> bytes:
        """The bytes of image ``index``.

        Raises:
            ShardError: the shard cannot be read, or has become shorter.
        """
        row, path = self.rows[index], self.shard(index)
        try:
            with path.open("rb") as file:
                file.seek(int(row["offset"]))
                data = file.read(int(row["size"]))
        except OSError as cause:
            raise ShardError(f"cannot read the shard {path}: {cause}") from cause
        if len(data) < row["size"]:
            raise ShardError(f"the shard {path} has become shorter since this program started")
        return data

    def shard(self, index: int) -> Path:
        """The shard of image ``index``."""
        return self.root / self.shards[int(self.rows[index]["shard"])]


def _fingerprint(root: Path, shards: Sequence[str]) -> str:
    states = [os.stat(root / shard) for shard in shards]
    facts = [[shard, state.st_size, state.st_mtime_ns] for shard, state in zip(shards, states, strict=True)]
    return hashlib.sha256(json.dumps([_VERSION, str(root.resolve()), facts]).encode()).hexdigest()[:16]


def _load(path: Path) -> NDArray[np.void] | None:
    try:
        rows: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.dtype.names == ("shard", "offset", "size", "target", "path") else None


def _made(root: Path, shards: Sequence[str]) -> NDArray[np.void]:
    parts = []
    for number, shard in enumerate(track(shards, total=len(shards), description="index of the shards")):
        places = _places(root / shard)
        width = max(len(place.path.encode("utf-8", "surrogateescape")) for place in places)
        fields = [("shard", "<u4"), ("offset", "<u8"), ("size", "<u8"), ("target", "<i8"), ("path", f"S{width}")]
        rows = np.empty(len(places), fields)
        rows["shard"] = number
        for field, column in zip(Place._fields, zip(*places, strict=True), strict=True):
            encoded = [name.encode("utf-8", "surrogateescape") for name in column] if field == "path" else column
            rows[field] = encoded
        parts.append(rows)
    rows = np.concatenate(parts)
    _check_targets(root, shards, rows)
    return rows


def _check_targets(root: Path, shards: Sequence[str], rows: NDArray[np.void]) -> None:
    without = np.flatnonzero(rows["target"] == NO_TARGET)
    if 0 < len(without) < len(rows):
        row = rows[without[0]]
        raise ShardError(
            f"{len(without)} of {len(rows)} images have no .{_TARGET_SUFFIX} beside them, the first is "
            f"{row['path'].decode('utf-8', 'replace')} in {root / shards[row['shard']]}: give all a class, or none"
        )


def _places(path: Path) -> list[Place]:
    """The images of one shard."""
    members: dict[str, dict[str, Place]] = {}
    try:
        for member, target in _members(path):
            folder, _, name = member.path.rpartition("/")
            stem, _, ending = name.partition(".")
            endings = members.setdefault(f"{folder}/{stem}" if folder else stem, {})
            if ending in endings:
                raise ShardError(f"{path} holds {member.path} twice: write the shard anew, each name once")
            endings[ending] = member._replace(target=target)
    except (tarfile.TarError, OSError) as cause:
        raise ShardError(f"cannot read the shard {path}: {cause}; copy or write it again") from cause
    places = [_image(path, endings) for endings in members.values()]
    found = [place for place in places if place is not None]
    if not found:
        raise ShardError(f"the shard {path} holds no images: expected members such as 0001.jpg and 0001.cls")
    return found


def _members(path: Path) -> Iterator[tuple[Place, int]]:
    """All files in the archive, and the class that those with the suffix of classes hold."""
    archive: Any
    with tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # tarfile keeps them all otherwise
            name = member.name.removeprefix("./")
            if not member.isreg() or name.rpartition("/")[2].startswith((".", "__")):
                continue
            if member.issparse():
                raise ShardError(f"{name} in {path} is stored as a sparse file: write the shard without --sparse")
            target = NO_TARGET
            if name.endswith(f".{_TARGET_SUFFIX}"):
                target = _class_of(archive, member, path)
            yield Place(name, member.offset_data, member.size, target), target
        # Where a header is damaged or cut off, tarfile takes that for the end.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it is cut off or damaged at byte {archive.offset}, where no member and no end is")


def _class_of(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    file = archive.extractfile(member)
    text = b"" if file is None else file.read(64)
    try:
        target = int(text)
    except ValueError:
        target = NO_TARGET
    if target < 0:
        raise ShardError(f"{member.name} in {path} holds {text!r}: a class is a whole number from 0")
    return target


def _image(path: Path, endings: dict[str, Place]) -> Place | None:
    """The image among the members of one key: ``.jpg`` before ``.seg.png`` and both before ``.npy``; None: none."""
    found = [ending for ending in endings if is_image_name(f"a.{ending}")]
    for rank in (_is_plain_picture, _is_picture, _is_anything):
        chosen = [ending for ending in found if rank(ending)]
        if len(chosen) > 1:
            names = " and ".join(endings[ending].path for ending in chosen)
            raise ShardError(f"{names} in {path} have one key: which is the image? Write the shard with one of them")
        if chosen:
            target = endings.get(_TARGET_SUFFIX)
            return endings[chosen[0]]._replace(target=NO_TARGET if target is None else target.target)
    return None


def _is_plain_picture(ending: str) -> bool:
    return _is_picture(ending) and ("." not in ending or ending.lower() == "fits.gz")


def _is_picture(ending: str) -> bool:
    return not ending.lower().endswith("npy")


def _is_anything(ending: str) -> bool:
    return True
