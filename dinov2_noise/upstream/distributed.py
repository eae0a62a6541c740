"""``dinov2.distributed``: start without CUDA, give the tasks of submitit's local executor their ranks, and watch over
the processes of a run.

Replaced: `enable`. On a CPU it uses gloo and, unless a launcher has set the environment, a group of one process. Read
against lines 127-169 and 230-270.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from dinov2_noise import cpu
from dinov2_noise.upstream import heartbeat, runtime
from dinov2_noise.upstream.signatures import expect_signature


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launcher_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process group that no launcher has set: one process, or one task of submitit's local executor.

    Empty when torchrun or SLURM rule, whose variables upstream reads itself.
    """
    if "RANK" in environment or "SLURM_JOB_ID" in environment:
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
        if not torch.cuda.is_available():
            cpu.use_cpu()
            os.environ.update(launcher_environment(os.environ))
            with _gloo(module.dist):
                original(set_cuda_current_device=False, overwrite=overwrite)
        else:
            if int(os.environ.get("SUBMITIT_LOCAL_NTASKS", "1")) > 1:
                os.environ.update(launcher_environment(os.environ))
            original(
                set_cuda_current_device=set_cuda_current_device,
                overwrite=overwrite,
                allow_nccl_timeout=allow_nccl_timeout,
            )
        heartbeat.start(runtime.current())  # upstream's `setup` has read the config by now

    module.enable = enable
