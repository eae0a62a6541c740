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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2_noise.configs import config_file
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.files import write_json
from dinov2_noise.upstream.lost_rank import LOST_RANK_STATUS


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


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, log: Path | None = None) -> None:
    """Run ``command`` to its end, its output shown or written to ``log``.

    Raises:
        LaunchError: it failed; names the process that failed first, where there were several, and the log, of which it
            repeats the last line.
    """
    with tempfile.TemporaryDirectory(prefix="dinov2-noise-") as folder:
        cause = Path(folder, "cause.json")
        variables = {**(os.environ if environment is None else environment), "TORCHELASTIC_ERROR_FILE": str(cause)}
        if log is None:
            status = subprocess.run(command, env=variables, check=False).returncode
            tail = "see the output above"
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("w", encoding="utf-8") as stream:
                status = subprocess.run(command, env=variables, stdout=stream, stderr=stream, check=False).returncode
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            tail = f"the last line of {log} is: {lines[-1] if lines else '(empty)'}"
        if status != 0:
            first = f"{json.loads(cause.read_text(encoding='utf-8'))['message']}; " if cause.exists() else ""
            raise LaunchError(f"{first}`{' '.join(command[1:4])} …` ended with status {status}; {tail}")


def main(arguments: Sequence[str] | None = None) -> int:
    """torchrun; tells the process that failed first on stderr and in the file ``TORCHELASTIC_ERROR_FILE``."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        torchrun.run(torchrun.parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        cause = str(Failure(rank, failure.pid, failure.exitcode, _left_message(failure)))
        print(f"\n{cause}", file=sys.stderr)
        path = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if path:
            write_json(Path(path), {"message": cause})
        return 1
    return 0


def _left_message(failure: Any) -> str:
    """What the process wrote into its error file: its error's type and first line, or nothing."""
    return str(failure.message.get("message", "")) if isinstance(failure.message, dict) else ""


if __name__ == "__main__":
    sys.exit(main())
