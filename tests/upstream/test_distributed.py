"""Which launcher gives a process its place: torchrun, SLURM's srun, submitit's local executor, or none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import clean_environment

from dinov2_noise.errors import PluginError
from dinov2_noise.upstream.distributed import is_slurm_task, launcher_environment

JOB = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NTASKS": "4"}
BATCH_SHELL = JOB | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
TASK = JOB | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SIX = dict.fromkeys(("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), "1")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TASK, True),
        (JOB | {"SLURM_STEPID": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        (BATCH_SHELL | {"SLURM_PROCID": "2"}, True),
        (TASK | {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}, True),
        (BATCH_SHELL, False),
        (TASK | {"SLURM_STEP_ID": "4294967290"}, False),
        (JOB, False),
        ({"SLURM_JOB_ID": "77"}, False),
        (TASK | {"TORCHELASTIC_RUN_ID": "none"}, False),
        (TASK | SIX, False),
        (TASK | {"SUBMITIT_EXECUTOR": "local"}, False),
        ({}, False),
    ],
    ids=[
        *("task of srun", "task of an old srun", "rank without a step", "task with an address"),
        *("shell of sbatch", "shell of salloc", "older shell of salloc", "job number alone"),
        *("torchrun in srun", "all of torch's variables", "submitit's local executor", "no SLURM"),
    ],
)
def test_only_tasks_of_srun_take_their_place_from_slurm(environment: dict[str, str], expected: bool) -> None:
    assert is_slurm_task(environment) is expected


def test_a_task_without_all_its_variables_is_an_error() -> None:
    with pytest.raises(PluginError, match="SLURM_PROCID, SLURM_LOCALID, SLURM_NTASKS, SLURM_JOB_NUM_NODES"):
        is_slurm_task({"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"})


def test_without_a_launcher_the_group_has_one_process() -> None:
    alone = launcher_environment(BATCH_SHELL)
    assert (alone["RANK"], alone["WORLD_SIZE"], alone["LOCAL_WORLD_SIZE"]) == ("0", "1", "1")
    assert launcher_environment(TASK) == launcher_environment({"RANK": "0"}) == {}
    local = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1"}
    task = launcher_environment(BATCH_SHELL | local | {"SUBMITIT_LOCAL_JOB_ID": "41234"})
    assert (task["RANK"], task["WORLD_SIZE"], task["MASTER_PORT"]) == ("1", "2", "21234")


ENABLE = """
import os, dinov2.distributed as d
d.enable(overwrite=True)
line = f"rank {d.get_global_rank()} of {d.get_global_size()} in job {os.environ['SLURM_JOB_ID']}\\n"
os.write(1, line.encode())  # upstream's print is for rank 0
"""


@pytest.mark.upstream
@pytest.mark.parametrize(("environment", "processes"), [(TASK | {"SLURM_NTASKS": "1"}, 2), (BATCH_SHELL, 1)])
def test_the_group_inside_an_allocation(environment: dict[str, str], processes: int) -> None:
    torchrun = ["-m", "dinov2_noise.launch", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    command = [*(torchrun if processes == 2 else []), "-c", ENABLE]
    done = subprocess.run(
        [sys.executable, *command],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ranks = sorted(line for line in done.stdout.splitlines() if line.startswith("rank "))
    assert ranks == [f"rank {rank} of {processes} in job 77" for rank in range(processes)]
