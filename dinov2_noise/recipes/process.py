"""Run one command to its end, and take it down with us when we are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import IO

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.launch import LaunchError, last_line

_GRACE_S = 30.0  # a training loop finishes its step, add-noise the images at work


class StoppedError(DinoNoiseError):
    """We were asked to end by a signal, as `kill` and a closed terminal send it."""


def executable(command: Sequence[str]) -> list[str]:
    """``command`` with ``dinov2-noise`` and ``python`` replaced by those of this environment."""
    first = {"dinov2-noise": [sys.executable, "-m", "dinov2_noise"], "python": [sys.executable]}
    return [*first.get(command[0], [command[0]]), *command[1:]]


def run_logged(command: Sequence[str], log: Path, *, environment: Mapping[str, str], lock: IO[str] | None) -> None:
    """Run ``command``, appending all it prints to ``log``.

    The process gets a group of its own; when this one is interrupted, the group is interrupted, then ended. ``lock`` is
    handed on, so that it is held as long as any of both lives.

    Raises:
        LaunchError: it cannot be started, or ended with another status than 0; names the log and its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        print(f"# {now()} {' '.join(command)}", file=stream, flush=True)
        keep = () if lock is None else (lock.fileno(),)
        try:
            process = subprocess.Popen(
                command, env=environment, stdout=stream, stderr=stream, start_new_session=True, pass_fds=keep
            )
        except OSError as cause:
            raise LaunchError(f"cannot start {command[0]}: {cause}") from cause
        with _ending_with_us(process):
            status = process.wait()
    if status != 0:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise LaunchError(f"`{_short(command)}` {how}; {last_line(log)}")


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `StoppedError` in the block, so that children are ended and records written."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise StoppedError(f"stopped by {signal.Signals(number).name}: start the same command again to continue")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


@contextmanager
def _ending_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException as reason:
        # Only the first process: it ends its own workers in order.
        process.send_signal(signal.SIGINT if isinstance(reason, KeyboardInterrupt) else signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            _kill_group(process)
        raise


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _short(command: Sequence[str]) -> str:
    text = " ".join([Path(command[0]).name, *command[1:]])
    return text if len(text) <= 60 else f"{text[:60]}…"
