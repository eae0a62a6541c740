"""Checkpoint files of a run: read, checked, written whole or not at all, and what to do when one is damaged."""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dinov2_noise.errors import CheckpointError
from dinov2_noise.files import atomic_path

logger = logging.getLogger("dinov2")

LAST = "last_checkpoint"

# A large checkpoint takes minutes on a slow disk; NCCL gives a collective ten.
_PATIENCE = timedelta(hours=4)

Found = TypeVar("Found")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a training checkpoint, on the CPU.

    Raises:
        CheckpointError: it is missing, truncated or something else; names an intact one beside it, if there is one.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist. {way_out(path)}")
    try:
        content = _load(path)
    except Exception as cause:
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {path} is truncated or no checkpoint: {path.stat().st_size:,} bytes, {reason}. {way_out(path)}"
        ) from cause
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        found = f"the entries {', '.join(map(repr, content))}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint of a training run: it holds {found[:200]}, not 'model'. Weights alone to "
            f"start from are given as student.pretrained_weights. {way_out(path)}"
        )
    return content


def _load(path: Path) -> Any:
    """Mapped, the file is in memory once for all processes of a machine, and parts that nobody reads are not."""
    if zipfile.is_zipfile(path):  # the form before cannot be mapped
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as cause:
            if "mmap" not in str(cause):
                raise
            logger.info("dinov2-noise: %s lies where files cannot be mapped and is read as a whole", path)
    return torch.load(path, map_location="cpu", weights_only=True)


def way_out(broken: Path) -> str:
    """How to go on when a checkpoint cannot be used."""
    folder = broken.parent
    intact = newest_intact(folder, broken)
    if intact is None:
        return "No other checkpoint there is intact: begin anew with --no-resume, or in another --output-dir."
    return (
        f"The newest intact one there is {intact.name}: to resume from it, "
        f"run `echo {intact.name} > {folder / LAST}` and start again."
    )


def newest_intact(folder: Path, broken: Path | None = None) -> Path | None:
    """The readable checkpoint of the latest iteration in ``folder``, ``broken`` left out; no tensor is read."""
    found = []
    for path in sorted(folder.glob("model_*.pth")):
        if broken is not None and path.name == broken.name:
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(content["iteration"]), "model" in content and path))
        except Exception as cause:
            logger.debug("%s is left out: %s", path, cause)  # its own fault, or one rank's part
    return max(((number, path) for number, path in found if path), default=(0, None))[1]


def write_checkpoint(data: dict[str, Any], path: Path) -> None:
    """Checkpoint first, then the file that names it: an interruption leaves the previous pair.

    Raises:
        OSError: the disk is full, or what else the system objects to.
    """
    with atomic_path(path) as temporary:
        write_through(data, temporary)
    _sync_folder(path.parent)
    with atomic_path(path.with_name(LAST)) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(path.name)
        stream.flush()
        os.fsync(stream.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """A power cut undoes a renaming that is not on the disk yet; some file systems cannot be asked."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_through(data: Any, path: Path, *, random_bytes: int = 0) -> None:
    """Save onto the disk itself: network file systems and quotas may report only then that there is no room.

    ``random_bytes``: that many more behind it, which no file system can compress.

    Raises:
        OSError: see above.
    """
    block = os.urandom(2**20)
    try:
        with path.open("wb") as stream:
            torch.save(data, stream)
            for start in range(0, random_bytes, len(block)):
                stream.write(block[: random_bytes - start])
            stream.flush()
            os.fsync(stream.fileno())
    except RuntimeError as cause:  # torch tells only that its file position is wrong
        if isinstance(cause.__context__, OSError):
            raise cause.__context__ from None
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete half-written checkpoints of a process that was killed while it wrote."""
    for pattern in (".model_*.partial.pth", ".trial_save.*.partial.pth", f".{LAST}.*.partial*"):
        for path in folder.glob(pattern):
            logger.info("dinov2-noise: %s was left behind by an interrupted save and is deleted", path)
            path.unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Rename what names the checkpoints of an earlier run, which a run begun anew must not resume from.

    Raises:
        OSError: the system objects.
    """
    for tag in sorted(folder.glob(f"{LAST}*")):
        if tag.name == LAST or re.fullmatch(rf"{LAST}\.rank_\d+", tag.name):
            old = tag.with_name(f"{tag.name}.old")
            logger.info(
                "dinov2-noise: begun anew: %s, which names %s of the run before, is now %s",
                *(tag, tag.read_text(encoding="utf-8").strip(), old.name),
            )
            tag.replace(old)
    _sync_folder(folder)


_waiting_group: tuple[Any, Any] | None = None  # the default group it was made in, and the group


def waiting_group() -> Any:
    """The processes once more, in a group that has hours for rank 0's disk; collective when first called.

    None, the default group, for a single process, which waits for nobody.
    """
    global _waiting_group
    if dist.get_world_size() == 1:
        return None
    if _waiting_group is None or _waiting_group[0] is not dist.group.WORLD:
        _waiting_group = dist.group.WORLD, dist.new_group(backend="gloo", timeout=_PATIENCE)
        atexit.register(_forget_group)
    return _waiting_group[1]


def _forget_group() -> None:
    """Before the interpreter takes modules apart in an order of its own: its threads would outlive it."""
    global _waiting_group
    _waiting_group = None


def found_by_first_rank(find: Callable[[], Found]) -> Found:
    """What ``find`` returns on rank 0, on all ranks; others may still see a shared folder as it was.

    Raises:
        CheckpointError: ``find`` failed; on rank 0 its own error.
    """
    box: list[Any] = [None]
    with on_first_rank("rank 0 cannot tell what to resume from") as is_first:
        if is_first:
            box = [find()]
    dist.broadcast_object_list(box, src=0, group=waiting_group())
    found: Found = box[0]
    return found


@contextmanager
def on_first_rank(what: str) -> Iterator[bool]:
    """Yields whether this is rank 0, which alone does the block's work; if that fails, it fails on all ranks.

    Raises:
        CheckpointError: the system refused; names ``what`` was to be done. Errors other than the system's are this on
            the other ranks, and themselves on rank 0.
    """
    group = waiting_group()
    problem: Exception | None = None
    try:
        yield dist.get_rank() == 0
    except Exception as cause:
        problem = cause
    verdict = [None if problem is None else f"{what}: {str(problem) or type(problem).__name__}"]
    dist.broadcast_object_list(verdict, src=0, group=group)
    if problem is not None and not isinstance(problem, OSError):
        raise problem
    if verdict[0] is not None:
        raise CheckpointError(verdict[0])


def free_bytes(folder: Path) -> int:
    """Room on the disk that holds ``folder``."""
    return shutil.disk_usage(folder).free


def shown(n_bytes: int) -> str:
    """A size for people, in decimal units as disks are sold."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1000:.0f} kB"
