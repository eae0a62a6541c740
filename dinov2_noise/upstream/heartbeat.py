"""A process that dies ends the others within a minute, each naming it, instead of leaving them in a collective.

A daemon thread in each process of a run gives a sign of life and listens for those of the others. A hanging collective
cannot be interrupted by an exception, so a process that must stop says why and ends at once, with the exit status
`LOST_RANK_STATUS`. Long pauses of training itself (a checkpoint, slow images, a debugger) do not count: the thread
goes on.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import secrets
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from dinov2_noise.errors import DinoNoiseError, PluginError
from dinov2_noise.files import write_json
from dinov2_noise.upstream.lost_rank import (
    LOST_RANK_STATUS,
    SETTLE_S,
    Event,
    Watch,
    is_consequence,
    summary,
)
from dinov2_noise.upstream.runtime import Run
from dinov2_noise.upstream.star import Star, connect, listen, this_process

logger = logging.getLogger("dinov2")

_TICK_S = 0.5
_END_S = 30


class Heartbeat:
    """Beats for this process and ends it when another one is lost. ``log``: file name of process 0's log."""

    def __init__(self, star: Star, log: Path) -> None:
        self._star, self._watch, self._log = star, star.watch, log
        self._own, self._pid = star.watch.own, os.getpid()
        self._beat_s = min(5.0, star.watch.timeout_s / 5)
        self._failing = self._closing = False
        self._cause: Event | None = None
        self._settled = threading.Event()
        self._previous_hook = sys.excepthook
        self._thread = threading.Thread(target=self._run, name="dinov2-noise-heartbeat", daemon=True)

    def install(self) -> None:
        """Start, and take part in every way this process can end."""
        sys.excepthook = self._failed
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._star.forget)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._listen_and_beat()
        except Exception:
            # No reason to end training here, nor for the others to take this process for dead.
            logger.exception("dinov2-noise: a lost process will not be noticed any more")
            self._star.tell(Event(self._own, "ended"))
            self._star.step(0)
            self._star.close(longest_s=1.0)

    def _listen_and_beat(self) -> None:
        next_beat = 0.0
        while not self._closing:
            now = time.monotonic()
            if now >= next_beat:
                self._star.beat()
                next_beat = now + self._beat_s
            self._star.step(min(_TICK_S, self._beat_s))
            self._cause = self._watch.cause(time.monotonic())
            if self._cause is None:
                continue
            self._settled.set()
            if not self._failing:
                self._stop(self._cause)

    def close(self) -> None:
        """The orderly end: say goodbye, so that nobody takes this process for dead."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            return
        self._star.tell(Event(self._own, "ended"))
        self._end_connections()

    def _failed(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """An uncaught exception: tell the others; when it only says that another one is gone, name that one last."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            self._previous_hook(kind, error, trace)
            return
        self._failing = True
        consequence = is_consequence(error)
        self._star.tell(Event(self._own, "consequence" if consequence else "error", summary(error)))
        self._previous_hook(kind, error, trace)
        if consequence:
            # Until then at the latest, the silence of a lost machine has been noticed.
            self._settled.wait(self._watch.timeout_s + self._beat_s + 3 * SETTLE_S)
            if self._cause is not None and self._cause.member.rank != self._own.rank:
                self._stop(self._cause)
        record(error)
        # A process of a broken group may hang in the destructors of its collectives.
        _end_after(_END_S)

    def _stop(self, cause: Event) -> None:
        """Say why and end this process, whatever its main thread is waiting for."""
        _end_after(_END_S)  # should even logging hang
        log = self._log if cause.member.rank == 0 else Path(f"{self._log}.rank{cause.member.rank}")
        reason = self._watch.describe(cause)
        message = (
            f"dinov2-noise: {reason}. This process, {self._own.rank}, stops too. Look at its own "
            f"output and {log} first. To resume from the last checkpoint, start the same command again "
            "(without --no-resume)."
        )
        try:
            sys.stderr.write(f"\n{message}\n")
            sys.stderr.flush()
            logger.critical(message)
            for handler in (*logger.handlers, *logging.getLogger().handlers):
                handler.flush()
            _record(message, reason)
            self._star.tell(Event(self._own, "consequence", "a lost process"))
            self._end_connections()
            sys.stdout.flush()
        finally:
            os._exit(LOST_RANK_STATUS)

    def _end_connections(self) -> None:
        self._closing = True
        if threading.current_thread() is not self._thread:
            self._star.wake()
            self._thread.join(4 * _TICK_S)
            if self._thread.is_alive():  # it is about to end this process itself
                return
        self._star.step(0)
        self._star.close(longest_s=1.0)


def _end_after(seconds: float) -> None:
    """End this process after ``seconds`` even if it hangs in code that lets no Python thread run."""
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)


def record(error: BaseException) -> None:
    """Leave an error of this process where its launcher looks for it; one of ours with its whole message."""
    message = f"{type(error).__name__}: {error}" if isinstance(error, DinoNoiseError) else summary(error)
    _record("".join(traceback.format_exception(error)), message)


def _record(details: str, message: str) -> None:
    """Leave the reason where torchrun looks for it; its closing table then shows it."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": details, "timestamp": str(int(time.time()))}
        write_json(Path(path), {"message": {"message": message, "extraInfo": extra}})


def start(run: Run | None) -> Heartbeat | None:
    """Watch over the processes of ``run``; called by all of them once their group exists. None when there is nothing
    to watch: one process, no run of ours, or ``health.lost_rank_timeout_s: 0``.

    Raises:
        PluginError: process 0 cannot be reached.
    """
    if run is None or run.health.lost_rank_timeout_s == 0 or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    rank, size = dist.get_rank(), dist.get_world_size()
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    own, listener, hub = this_process(rank), None, None
    if rank == 0:
        listener = listen(one_machine=one_machine)
        address = [own.host, own.pid, listener.getsockname()[1], secrets.token_hex(16)]
    else:
        address = []
    shared = [address]
    dist.broadcast_object_list(shared, src=0)
    host, pid, port, token = shared[0]
    if rank != 0:
        try:
            hosts = ["127.0.0.1"] if one_machine else [os.environ["MASTER_ADDR"], host]
            hub = connect(hosts, port)
        except OSError as cause:
            raise PluginError(
                f"process {rank} cannot reach port {port} of process 0 (host {host}) to tell it of its life ({cause}): "
                "open the ports between the machines, or set health.lost_rank_timeout_s=0, which leaves a lost process "
                "to the timeout of the collectives"
            ) from cause
    watched = range(1, size) if rank == 0 else (0,)
    watch = Watch(own, size, watched, timeout_s=run.health.lost_rank_timeout_s, now=time.monotonic())
    if rank != 0:
        watch.members[0] = type(own)(0, host, pid)
    heartbeat = Heartbeat(
        Star(watch, token, listener=listener, hub=hub), Path(run.cfg.train.output_dir, "logs/log.txt")
    )
    heartbeat.install()
    return heartbeat
