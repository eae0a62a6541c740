"""Files that are whole or not there: written under a temporary name, which tells the process that writes.

A process that is killed leaves its temporary file behind; `remove_leftover` knows it from those that are being written.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from dinov2_noise.errors import BusyError, DinoNoiseError, WriteError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# The second form is that of older versions: it tells no process, so that such a file is a leftover after a day.
_PARTIAL = re.compile(
    r"\.+(?:(?P<place>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}|.*\.[0-9a-f]{8})\.partial.*", re.DOTALL
)
_LEFTOVER_S = 24 * 3600.0


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name only if the block succeeds.

    The temporary name keeps the suffix (encoders look at it) and starts with a dot (listings skip it). It tells the
    process that writes, so that `remove_leftover` knows those of processes that were killed.

    Args:
        path: the final name.
        durable: bring the content to the disk before the name: for the few files without which a folder is worth
            nothing. Of others a machine that loses its power may leave empty ones, see `files.missing_outputs`.

    Raises:
        WriteError: the file cannot be written.
    """
    temporary = path.with_name(f".{_process_mark()}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            flush_to_disk(temporary)
        os.replace(temporary, path)
    except DinoNoiseError:
        raise
    except OSError as cause:
        raise WriteError(path, cause) from cause
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Return when the content of a file is on the disk, not only in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@lru_cache(maxsize=1)
def _place_mark() -> str:
    """Tells apart places whose process numbers mean different processes: machines, boots, containers."""
    found = [platform.node()]
    with suppress(OSError):  # Linux alone has these
        found += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:8]


def _process_mark() -> str:
    return f"{_place_mark()}-{os.getpid()}"


def remove_leftover(path: Path) -> bool:
    """Delete the temporary file ``path`` if nobody writes it any more; returns whether it is such a file.

    That is certain where the process was one of this machine and is gone; of others after a day.
    """
    match = _PARTIAL.fullmatch(path.name)
    if match is None:
        return False
    with suppress(OSError):  # it is gone meanwhile, or may not be deleted: then it stays
        old = time.time() - path.stat().st_mtime > _LEFTOVER_S
        if old or (match["place"] == _place_mark() and not _is_alive(int(match["process"]))):
            path.unlink()
    return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    with suppress(OSError):  # one that has ended stays known until its parent asks for it, which some never do
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True


@contextmanager
def locked(path: Path, what: str) -> Iterator[IO[str] | None]:
    """Hold a lock on ``path`` in the block; None where the file system has no locks.

    A process that is killed gives it up, once those have ended to which it handed the open file on.

    Raises:
        BusyError: another process holds it.
        WriteError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8")
    except OSError as cause:
        raise WriteError(path, cause) from cause
    with stream:
        try:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise BusyError(what) from cause
        except OSError:  # some network file systems refuse
            yield None
            return
        try:
            yield stream
        finally:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_UN)  # also where a worker of ours still has it open


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        data = json.dumps(content, indent=2).encode()
    with atomic_path(path, durable=True) as temporary:
        temporary.write_bytes(data + b"\n")
