"""Recipes of commands that take no time, and a SLURM made of shell scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dinov2_noise.recipes import load_recipe
from dinov2_noise.recipes.plan import Plan

_CHAIN = """
variables: {text: hello, exit: 0}
steps:
  first:
    kind: command
    run: [bash, -c, "echo first >> ${workdir}/ran; echo ${text} > ${workdir}/a"]
    outputs: ["${workdir}/a"]
  second:
    kind: command
    run: [bash, -c, "echo second >> ${workdir}/ran; tr a-z A-Z < ${workdir}/a > ${workdir}/b; exit ${exit}"]
    inputs: ["${workdir}/a"]
    outputs: ["${workdir}/b"]
  third:
    kind: command
    run: [bash, -c, "echo third >> ${workdir}/ran; wc -c < ${workdir}/b > ${workdir}/c"]
    inputs: ["${workdir}/b"]
    outputs: ["${workdir}/c"]
"""


@pytest.fixture
def chain() -> str:
    """Three steps that append their names to ``ran`` and write ``a``, ``b`` from ``a``, and ``c`` from ``b``."""
    return _CHAIN


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Plan]:
    """A function (text of a recipe, *overrides) → its plan, in the working folder ``tmp_path / "w"``."""

    def plan(text: str, *overrides: str, name: str = "recipe") -> Plan:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        (tmp_path / "w").mkdir(exist_ok=True)
        return Plan(load_recipe(path, overrides, workdir=tmp_path / "w"))

    return plan


class FakeSlurm:
    """``sbatch``, ``squeue`` and ``srun`` as scripts that keep what they are given below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "queue").write_text("")
        (folder / "count").write_text("100")
        self._script(
            "sbatch",
            f"cd {folder}; n=$(($(cat count) + 1)); echo $n > count; echo $n >> queue",
            "cp $1 job-$n.sh; echo Submitted batch job $n",
        )
        self._script("squeue", f"cat {folder}/queue")
        # Starts SLURM_NTASKS tasks at once, as srun does, and fails if one fails.
        self._script(
            "srun",
            'while [[ $1 == --* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done; pids=""',
            "export SLURM_STEP_ID=0; for i in $(seq 0 $((SLURM_NTASKS - 1)))",
            'do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids="$pids $!"; done',
            "status=0; for pid in $pids; do wait $pid || status=1; done; exit $status",
        )

    def _script(self, name: str, *lines: str) -> None:
        path = self.bin / name
        path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
        path.chmod(0o755)

    def job(self, job_id: str) -> dict[str, str]:
        """The ``#SBATCH`` options of a submitted job."""
        lines = (self.folder / f"job-{job_id}.sh").read_text().splitlines()
        options = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH --")]
        return {key: value for key, _, value in (option.partition("=") for option in options)}

    def run(self, job_id: str, cwd: Path) -> int:
        """Run a submitted job's script to its end, as SLURM would; returns its exit status."""
        tasks = self.job(job_id).get("ntasks-per-node", "1")
        slurm = {
            "SLURM_JOB_ID": job_id,
            "SLURM_NTASKS": tasks,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_JOB_NODELIST": "localhost",
        }
        script = str(self.folder / f"job-{job_id}.sh")
        done = subprocess.run(["bash", script], env=os.environ | slurm, cwd=cwd, timeout=120, check=False)
        left = [line for line in (self.folder / "queue").read_text().split() if line != job_id]
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in left))
        return done.returncode


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    return fake
