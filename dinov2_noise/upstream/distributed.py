"""``dinov2.distributed``: start without CUDA, know which launcher rules, and watch over the processes of a run.

Replaced: `enable`. On a CPU it uses gloo and, unless a launcher has set the environment, a group of one process. The
tasks of submitit's local executor get their ranks. Upstream takes SLURM's variables wherever it finds
``SLURM_JOB_ID``, even those of a shell from which torchrun was started, and then each process of torchrun trains
alone; here only the tasks of ``srun`` take them. Read against lines 127-169 and 230-270.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from dinov2_noise import cpu
from dinov2_noise.errors import PluginError
from dinov2_noise.upstream import heartbeat, runtime
from dinov2_noise.upstream.signatures import expect_signature

_OF_A_PROCESS = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_OF_A_TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_JOB_NUM_NODES", "SLURM_JOB_NODELIST")
_FIRST_RESERVED_STEP = 0xFFFFFFF0  # above: steps that are no srun's, such as the shell of salloc (SLURM's slurm.h)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_slurm_task(environment: Mapping[str, str]) -> bool:
    """Whether the place of this process is the one that SLURM says: a task of ``srun``, started by no other launcher.

    All processes inside of an allocation have ``SLURM_JOB_ID``, and the shells of sbatch and salloc even rank 0 with
    the number of tasks of the whole job; but a step of its own, or a rank above 0, has only what ``srun`` starts.

    Raises:
        PluginError: it is one, but some of SLURM's variables did not reach it.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in environment or all(name in environment for name in _OF_A_PROCESS)
    by_submitit = environment.get("SUBMITIT_EXECUTOR") == "local"
    if "SLURM_JOB_ID" not in environment or by_torchrun or by_submitit:
        return False
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    in_step = step.isdecimal() and int(step) < _FIRST_RESERVED_STEP
    if not in_step and environment.get("SLURM_PROCID", "0") == "0":
        return False
    missing = [name for name in _OF_A_TASK if name not in environment]
    if missing:
        raise PluginError(
            f"this process is a task of SLURM's srun, but {', '.join(missing)} did not reach it: pass on all variables "
            "that begin with SLURM_, or unset SLURM_JOB_ID to train in one process"
        )
    return True


def launcher_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process group that no launcher has set: one process, or one task of submitit's local executor.

    Empty when torchrun or SLURM rule, whose variables upstream reads itself.
    """
    if "RANK" in environment or is_slurm_task(environment):
        return {}
    tasks, port = int(environment.get("SUBMITIT_LOCAL_NTASKS", "1")), _free_port()
    if tasks > 1:
        # All tasks must agree on the port without talking: derive it from the job's number.
        port = 20_000 + int(environment["SUBMITIT_LOCAL_JOB_ID"]) % 40_000
    rank = environment.get("SUBMITIT_LOCAL_GLOBALID", "0")
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": rank,
        "LOCAL_RANK": environment.get("SUBMITIT_LOCAL_LOCALID", rank),
        "WORLD_SIZE": str(tasks),
        "LOCAL_WORLD_SIZE": str(tasks),
    }


@contextmanager
def _no_slurm() -> Iterator[None]:
    job = os.environ.pop("SLURM_JOB_ID", None)
    try:
        yield
    finally:
        if job is not None:
            os.environ["SLURM_JOB_ID"] = job


@contextmanager
def _gloo(distributed: ModuleType) -> Iterator[None]:
    initialise = distributed.init_process_group

    def init_process_group(*args: Any, **options: Any) -> Any:
        return initialise(*args, **{**options, "backend": "gloo"})

    with mock.patch.object(distributed, "init_process_group", init_process_group):
        yield


def attach(module: Any) -> None:
    original = expect_signature(
        module,
        "enable",
        lambda *, set_cuda_current_device=True, overwrite=False, allow_nccl_timeout=False: None,
    )

    @wraps(original)
    def enable(
        *, set_cuda_current_device: bool = True, overwrite: bool = False, allow_nccl_timeout: bool = False
    ) -> None:
        local_tasks = int(os.environ.get("SUBMITIT_LOCAL_NTASKS", "1"))
        if not torch.cuda.is_available() or local_tasks > 1 or "SLURM_JOB_ID" in os.environ:
            os.environ.update(launcher_environment(os.environ))
        with nullcontext() if is_slurm_task(os.environ) else _no_slurm():
            if not torch.cuda.is_available():
                cpu.use_cpu()
                with _gloo(module.dist):
                    original(set_cuda_current_device=False, overwrite=overwrite)
            else:
                original(
                    set_cuda_current_device=set_cuda_current_device,
                    overwrite=overwrite,
                    allow_nccl_timeout=allow_nccl_timeout,
                )
        heartbeat.start(runtime.current())  # upstream's `setup` has read the config by now

    module.enable = enable
