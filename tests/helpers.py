"""What tests call, as against fixtures, which are in conftest.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import pytest

_LAUNCHER_VARIABLES = ("MASTER_", "RANK", "WORLD_SIZE", "LOCAL_", "SLURM_", "SUBMITIT_")


def clean_environment(*python_path: Path) -> dict[str, str]:
    """This process's environment without a launcher's variables, one thread, ``python_path`` first."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_VARIABLES)}
    paths = [str(path) for path in python_path] + environment.get("PYTHONPATH", "").split(os.pathsep)
    return environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def run_python(
    *arguments: str, path: tuple[Path, ...] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``python <arguments>`` in a fresh process; output is captured, the status is not checked."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean_environment(*path),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """``mount ARGUMENTS`` in the block, of which the last is the place; the test is skipped where that is not allowed.

    A process beside this one takes the mount away, also when this one is killed.
    """
    script = 'mount "$@" && echo done && cat; shift $(($# - 1)); umount --lazy "$1"'
    command = ["sh", "-c", script, "sh", *map(str, arguments)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() == "":
            pytest.skip("mounting is not allowed here")
        yield


@dataclass(frozen=True)
class SmallSet:
    """Roots of one small data set in three forms; metadata beside each (``<root>-extra``)."""

    clean: Path
    noisy: Path
    denoised: Path

    def pair(self, split: str = "TRAIN") -> str:
        """The dataset string of noisy images with their denoised twins."""
        return f"ImageNet:split={split}:root={self.noisy}:denoised={self.denoised}"
