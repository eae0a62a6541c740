"""What is kept of every step: one JSON file that tells with which settings and inputs it was done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dinov2_noise.errors import CheckpointError
from dinov2_noise.files import MANIFEST_NAME, read_manifest, write_json

_HASHED_BYTES = 16 * 2**20  # larger files are told apart by size and time of change


@dataclass(frozen=True)
class StepRecord:
    """One step, as it was last started.

    Attributes:
        state: ``running``, ``failed`` or ``done``.
        command: as one would type it.
        settings: the step's settings that decide what comes out.
        inputs: needed step → its ``execution`` and a fingerprint of its outputs, when this step began.
        outputs: files and folders written.
        started, ended: UTC, ISO 8601.
        execution: a new one each time the step is really done: what came out may differ where no fingerprint tells.
        versions: of our code, upstream's and PyTorch.
    """

    state: str
    command: list[str]
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: list[str]
    started: str
    execution: str
    ended: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the record, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> StepRecord | None:
        """The record at ``path``; None where there is none.

        Raises:
            CheckpointError: it is not a record.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as cause:
            raise CheckpointError(f"cannot read the step record {path}: {cause}; delete it to redo the step") from cause
        if not isinstance(content, dict) or set(content) != {item.name for item in fields(cls)}:
            raise CheckpointError(f"{path} is not a step record of this version: delete it to redo the step")
        return cls(**content)


def fingerprint(paths: Iterable[Path]) -> str:
    """A text that changes when the files do: hash of manifests and small files, else size and time."""
    digest = hashlib.sha256()
    for path in paths:
        if path.name == MANIFEST_NAME and path.is_file():
            manifest = read_manifest(path.parent)
            # The version that wrote a folder may be another one without the images being others.
            content = {key: value for key, value in manifest.items() if key != "version"}
            digest.update(json.dumps(content, sort_keys=True).encode())
        elif path.is_file():
            digest.update(_of_file(path))
        elif path.is_dir() and not (path / MANIFEST_NAME).is_file():
            _add_folder(digest, path)
    return digest.hexdigest()[:16]


def _add_folder(digest: hashlib._Hash, folder: Path) -> None:
    """Metadata lies at the top and is compared by content; images lie deeper and are too many for that."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
                digest.update(_of_file(path) if path.parent == folder else _size_and_time(path))


def _of_file(path: Path) -> bytes:
    if path.stat().st_size > _HASHED_BYTES:
        return _size_and_time(path)
    return hashlib.sha256(path.read_bytes()).digest()


def _size_and_time(path: Path) -> bytes:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}\n".encode()
