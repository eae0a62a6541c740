"""What every command that writes a folder shares: atomic files, listings, and a manifest that allows to resume.

A folder written by us holds ``manifest.json``: which command wrote it, with which parameters, and whether it is
complete. A second run with the same parameters continues; one with others is refused, so that two results never mix
in one folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from dinov2_noise import __version__
from dinov2_noise.errors import ConfigError, MissingFolderError, OutputFolderError
from dinov2_noise.writing import atomic_path, flush_to_disk, remove_leftover, write_json

__all__ = [
    "IMAGE_SUFFIXES",
    "MANIFEST_NAME",
    "OutputFolder",
    "atomic_path",
    "flush_to_disk",
    "is_finished",
    "is_image_name",
    "list_images",
    "missing_outputs",
    "parse_shard",
    "read_manifest",
    "remove_leftover",
    "require_outside",
    "source_identity",
    "write_json",
]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_ARRAYS = (".npy", ".fits", ".fit", ".fts", ".fits.gz", ".dcm", ".dicom")
IMAGE_SUFFIXES = _PICTURES + _ARRAYS
MANIFEST_NAME = "manifest.json"

# Metadata of ImageNet in DINOv2's format, which some keep beside the images.
_METADATA = re.compile(r"(entries|paths|class-ids|class-names)-(TRAIN|VAL|TEST)\.npy")
_SHARD = re.compile(r"(\d+)/(\d+)", re.ASCII)


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8``, the second of eight commands that share some work, as (2, 8).

    Raises:
        ConfigError: another form, or not 1 <= i <= n.
    """
    match = _SHARD.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"shard {text!r} is not i/n with i from 1 to n, such as 2/8")
    return int(match[1]), int(match[2])


def require_shard(shard: tuple[int, int]) -> None:
    """Check that ``shard`` is (i, n) with i from 1 to n.

    Raises:
        ConfigError: it is not.
    """
    number, shards = shard
    if not 1 <= number <= shards:
        raise ConfigError(f"shard {number} of {shards} does not exist: they count from 1 to n")


def require_outside(destination: Path, source: Path) -> None:
    """Check that a folder to be written does not lie in the one it is made from, which it would add to.

    Raises:
        OutputFolderError: it does.
    """
    if destination.resolve().is_relative_to(source.resolve()):
        raise OutputFolderError(f"output folder {destination} lies in the source {source}: choose one outside of it")


def list_images(root: Path, *, what: str = "image folder") -> list[str]:
    """Relative POSIX paths of all images below ``root``, sorted; hidden files and folders are skipped.

    Links to folders are followed, except those that lead back to a folder above.

    Raises:
        MissingFolderError: ``root`` does not exist, is not a folder, or holds no image; or a folder cannot be read.
    """
    if not root.is_dir():
        raise MissingFolderError(f"{what} {root} {'is a file' if root.exists() else 'does not exist'}: check the path")
    try:
        found = sorted(find_files(root, is_image_name))
    except OSError as cause:
        raise MissingFolderError(f"{what} {root} cannot be read: {cause}") from cause
    if not found:
        raise MissingFolderError(
            f"{what} {root} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}, in all folders below it)"
        )
    return found


def find_files(root: Path, is_wanted: Callable[[str], bool]) -> Iterator[str]:
    """Relative POSIX paths of the files below ``root`` whose names are wanted, in no order, as `list_images` looks."""
    return _walk(root, "", (), is_wanted)


def _walk(
    folder: Path | str, prefix: str, above: tuple[tuple[int, int], ...], is_wanted: Callable[[str], bool]
) -> Iterator[str]:
    """``above``: device and number of the folders on the way, by which a circle of links is known."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in above:
        return
    above = (*above, (status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above, is_wanted)
            elif is_wanted(entry.name):
                yield prefix + entry.name


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not _METADATA.fullmatch(name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; most file systems tell without another look at the disk."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_finished(path: Path) -> bool:
    """Whether an output is there: a file of size 0 is what a machine that lost its power may leave."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def missing_outputs(names: Sequence[str], folder: Path, output_name: Callable[[str], str]) -> list[str]:
    """Those of ``names`` whose output is not in ``folder``, or is empty. Leftovers of killed processes are deleted.

    One look at each folder, in constant memory where neighbours in ``names`` go to the same one.

    Args:
        names: in order.
        folder: where the outputs go.
        output_name: from a name to the path of its output, relative to ``folder``.
    """
    listing = lru_cache(maxsize=16)(partial(_finished_files, folder))

    def is_missing(name: str) -> bool:
        parent, _, own = output_name(name).rpartition("/")
        return own not in listing(parent)

    return [name for name in names if is_missing(name)]


def _finished_files(root: Path, parent: str) -> frozenset[str]:
    found: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / parent) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                remove_leftover(Path(entry.path))
                continue
            with suppress(FileNotFoundError):
                if entry.stat().st_size > 0:
                    found.append(entry.name)
    return frozenset(found)


@dataclass(frozen=True)
class OutputFolder:
    """A folder that one command, with one set of parameters, writes and may continue.

    ``parameters`` hold all that decides the content (source, noise, seed, weights' hash, …) and nothing else.
    """

    path: Path
    command: str
    parameters: Mapping[str, Any]

    @property
    def manifest_path(self) -> Path:
        return self.path / MANIFEST_NAME

    def open(self) -> None:
        """Create the folder, or check that it is ours to continue.

        Raises:
            OutputFolderError: it holds files of another command, other parameters, or no manifest at all.
            WriteError: it cannot be written to.
        """
        if not self.check():
            self._write(complete=False, facts={})
        for pattern in (".*.partial*", "*/.*.partial*"):
            for path in self.path.glob(pattern):
                remove_leftover(path)

    def check(self) -> bool:
        """Whether the folder is there, and ours to continue; creates nothing.

        Raises:
            OutputFolderError: as for `open`.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputFolderError(f"output {self.path} is a file: choose another output folder")
        # Listed before the manifest is looked for: another shard may be writing it, and more, just now.
        is_filled = self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir())
        if self.manifest_path.exists():
            self._check_same_job(read_manifest(self.path))
            return True
        if is_filled:
            raise OutputFolderError(
                f"output folder {self.path} is not empty and was not written by `dinov2-noise {self.command}`: "
                "choose an empty or new folder"
            )
        return False

    def reopen(self) -> None:
        """Mark the folder incomplete again: a continued job has found more to do."""
        self._write(complete=False, facts={})

    def close(self, **facts: Any) -> None:
        """Mark the folder complete; ``facts`` (counts, hashes, …) are kept beside the parameters."""
        self._write(complete=True, facts=facts)

    def _write(self, *, complete: bool, facts: Mapping[str, Any]) -> None:
        write_json(
            self.manifest_path,
            {
                "command": self.command,
                "parameters": dict(self.parameters),
                "complete": complete,
                "version": __version__,
                **facts,
            },
        )

    def _check_same_job(self, manifest: Mapping[str, Any]) -> None:
        if manifest.get("command") != self.command:
            raise OutputFolderError(
                f"output folder {self.path} was written by `dinov2-noise {manifest.get('command')}`: choose "
                "another folder"
            )
        differing = differences(manifest.get("parameters", {}), self.parameters)
        if differing:
            raise OutputFolderError(
                f"output folder {self.path} already holds other results:{differing}\n"
                "Choose another folder, or delete that one if its content is no longer needed."
            )


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A line for each key whose value is another one than in the JSON that was written; empty if there is none."""
    ours = json.loads(json.dumps(dict(now)))
    differing = [key for key in sorted({*there, *ours}) if there.get(key) != ours.get(key)]
    return "".join(f"\n  {key}: there {there.get(key)!r}, now {ours.get(key)!r}" for key in differing)


def source_identity(folder: Path) -> dict[str, Any]:
    """What tells the content of a source folder from other content at the same path: how we wrote it, if we did."""
    if not (folder / MANIFEST_NAME).is_file():
        return {}
    return {"source_parameters": read_manifest(folder).get("parameters", {})}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder written by us.

    Raises:
        OutputFolderError: there is none, or it is not readable.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise OutputFolderError(f"cannot read the manifest {path}: {cause}") from cause
    if not isinstance(content, dict):
        raise OutputFolderError(f"the manifest {path} is not a JSON object")
    return content
