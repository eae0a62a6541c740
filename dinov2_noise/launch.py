"""Start upstream's scripts as processes of their own, as a user would.

As a program (``python -m dinov2_noise.launch``) this is torchrun, which takes the same options, with a last line that
names the process that failed first.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from dinov2_noise.configs import config_file
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.files import write_json
from dinov2_noise.upstream.lost_rank import LOST_RANK_STATUS

_GRACE_S = 40.0  # torchrun gives its processes 30 s to end
_STARTED_BY = "DINOV2_NOISE_STARTED_BY"  # number of the process that `run` a command
_LOOK_S = 0.5


class LaunchError(DinoNoiseError, RuntimeError):
    """A process of upstream's ended with an error."""


@dataclass(frozen=True)
class Failure:
    """How torchrun saw one process end; ``status`` is negative for a signal, ``message`` what the process left."""

    rank: int
    pid: int
    status: int
    message: str = ""

    def __str__(self) -> str:
        if self.message and self.status == LOST_RANK_STATUS:  # it names another one
            return self.message
        if self.message:
            how = f"stopped with {self.message}"
        elif self.status < 0:
            how = f"was killed by {_signal_name(-self.status)}"
            if self.status == -9:
                how += " (perhaps by the system, out of memory)"
        else:
            how = f"ended with status {self.status}"
        return f"process {self.rank} (pid {self.pid}) {how}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def train_command(
    config: str, output: Path, options: Sequence[str] = (), *, processes: int = 1, resume: bool = True
) -> list[str]:
    """The command line of upstream's ``dinov2.train.train``; ``processes`` > 1 go through torchrun.

    ``config`` is a path or a name that ``dinov2-noise configs`` lists.
    """
    path = config_file(config)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "dinov2_noise.launch", "--standalone", "--nproc-per-node", str(processes)]
    flags = [] if resume else ["--no-resume"]
    return [*launcher, "-m", "dinov2.train.train", "--config-file", path, "--output-dir", str(output), *flags, *options]


def run_in_processes(arguments: Sequence[str], processes: int) -> None:
    """Run ``dinov2-noise <arguments>`` as several processes of this machine, through torchrun; see `run`.

    They share its cores, where torchrun would give each a single one.

    Raises:
        LaunchError: one of them failed; names the first.
    """
    torchrun = ["-m", "dinov2_noise.launch", "--standalone", "--nproc-per-node", str(processes)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    run([sys.executable, *torchrun, "-m", "dinov2_noise", *arguments], environment={**threads, **os.environ})


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, log: Path | None = None) -> None:
    """Run ``command`` to its end, its output shown or written to ``log``.

    SIGINT and SIGTERM are passed on to it, and it gets 40 s to end.

    Raises:
        LaunchError: it failed; with the error that it left, which names the process that failed first where there were
            several, else its status; with a log, names that and, where no error was left, its last line.
        KeyboardInterrupt: SIGINT ended it.
        SystemExit: SIGTERM ended it; the status is 143.
    """
    with tempfile.TemporaryDirectory(prefix="dinov2-noise-") as folder:
        cause = Path(folder, "cause.json")
        variables = dict(os.environ if environment is None else environment)
        variables |= {"TORCHELASTIC_ERROR_FILE": str(cause), _STARTED_BY: str(os.getpid())}
        if log is None:
            status = _wait(command, variables, None)
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("w", encoding="utf-8") as stream:
                status = _wait(command, variables, stream)
        if status != 0:
            raise LaunchError(_failure_text(command, status, _left_error(cause), log))


def _failure_text(command: Sequence[str], status: int, error: str, log: Path | None) -> str:
    if error:
        return error if log is None else f"{error}; see {log}"
    tail = "see the output above"
    if log is not None:
        tail = last_line(log)
    return f"`{' '.join(command[1:4])} …` ended with status {status}; {tail}"


def last_line(log: Path) -> str:
    """``the last line of LOG is: …``, for errors."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the last line of {log} is: {lines[-1] if lines else '(empty)'}"


def _left_error(path: Path) -> str:
    """What a process wrote into its error file: a text where it is torchrun's own, nested where it is a worker's."""
    try:
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
    except FileNotFoundError:
        return ""
    return str(message["message"] if isinstance(message, dict) else message)


def _wait(command: Sequence[str], environment: Mapping[str, str], stream: IO[str] | None) -> int:
    """The status of ``command``; see `run` for signals, which only the main thread gets."""
    ending = _Ending()
    before = {}
    if threading.current_thread() is threading.main_thread():
        wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, ending.receive) for number in wanted}
    try:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        ending.of(process)
        status = process.wait()
    finally:
        ending.over()
        for number, handler in before.items():
            signal.signal(number, handler)
    if ending.reason == signal.SIGINT:
        raise KeyboardInterrupt
    if ending.reason == signal.SIGTERM:
        raise SystemExit(128 + signal.SIGTERM)
    return status


class _Ending:
    """Passes the first signal on to a process, once: a second one would disturb torchrun in ending its workers."""

    def __init__(self) -> None:
        self.reason: int | None = None
        self._process: subprocess.Popen[Any] | None = None
        self._timers: list[threading.Timer] = []

    def of(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        if self.reason is not None:  # it came while the process was being started
            self._pass_on()

    def receive(self, number: int, _frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason = number
            if self._process is not None:
                self._pass_on()

    def over(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _pass_on(self) -> None:
        assert self._process is not None
        assert self.reason is not None
        steps = [self._process.kill]
        if self.reason == signal.SIGINT and _in_foreground():
            # Ctrl-C has reached the process already. If it was not Ctrl-C, a signal that surely is its first one.
            steps.insert(0, self._process.terminate)
        else:
            self._process.send_signal(self.reason)
        for number, step in enumerate(steps, start=1):
            timer = threading.Timer(number * _GRACE_S, step)
            timer.daemon = True
            timer.start()
            self._timers.append(timer)


def _in_foreground() -> bool:
    """Whether the keys of a terminal send their signals to this process and its children."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """torchrun; tells the process that failed first in the file ``TORCHELASTIC_ERROR_FILE``, else on stderr."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    _end_with(os.environ.pop(_STARTED_BY, ""))
    try:
        torchrun.run(torchrun.parse_args(arguments))
    except SignalException as error:  # it has ended its processes
        print(f"\nstopped by {error.sigval.name}", file=sys.stderr)
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        cause = str(Failure(rank, failure.pid, failure.exitcode, _left_message(failure)))
        path = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if path:  # who has started this one tells it; the process itself has told the whole
            first, *more = cause.splitlines()
            write_json(Path(path), {"message": f"{first} …" if more else first})
        else:
            print(f"\n{cause}", file=sys.stderr)
        return 1
    return 0


def _end_with(starter: str) -> None:
    """End in order when the process ``starter``, if it is the parent, was killed: given again, its command would meet
    this one at work in the same folder.
    """

    def watch() -> None:
        while str(os.getppid()) == starter:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    if str(os.getppid()) == starter:
        threading.Thread(target=watch, daemon=True).start()


def _left_message(failure: Any) -> str:
    """What the process wrote into its error file: its error's type and message, or nothing."""
    return str(failure.message.get("message", "")) if isinstance(failure.message, dict) else ""


if __name__ == "__main__":
    sys.exit(main())
