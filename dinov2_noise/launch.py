"""Start upstream's scripts as processes of their own, as a user would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dinov2_noise.configs import shipped
from dinov2_noise.errors import DinoNoiseError


class LaunchError(DinoNoiseError, RuntimeError):
    """A process of upstream's ended with an error."""


def train_command(
    config: str, output: Path, options: Sequence[str] = (), *, processes: int = 1, resume: bool = True
) -> list[str]:
    """The command line of upstream's ``dinov2.train.train``; ``processes`` > 1 go through torchrun.

    ``config`` is a path or the name of a shipped config.
    """
    path = str(shipped().get(config, config))
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    flags = [] if resume else ["--no-resume"]
    return [*launcher, "-m", "dinov2.train.train", "--config-file", path, "--output-dir", str(output), *flags, *options]


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, log: Path | None = None) -> None:
    """Run ``command`` to its end, its output shown or written to ``log``.

    Raises:
        LaunchError: it failed; names the log and repeats its last line.
    """
    if log is None:
        status = subprocess.run(command, env=environment, check=False).returncode
        tail = "see the output above"
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stream:
            status = subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False).returncode
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        tail = f"the last line of {log} is: {lines[-1] if lines else '(empty)'}"
    if status != 0:
        raise LaunchError(f"`{' '.join(command[1:4])} …` ended with status {status}; {tail}")
