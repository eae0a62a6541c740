"""Several processes at one job: which of them this is, and the group in which they talk to each other.

They are started by torchrun (``--gpus N`` of a command does that) or, under SLURM, by submitit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed as dist

from dinov2_noise.errors import ConfigError, DinoNoiseError

T = TypeVar("T")
_SETTLE_S = 2.0  # a process that fails by itself shall be the first to say so; its launcher then ends this one
_LONGEST_WAIT = timedelta(hours=12)  # of one process for the others; a lost one is noticed by the launcher at once


class LostProcessError(DinoNoiseError, RuntimeError):
    """Talking to another process of the group failed: it has ended."""


@dataclass(frozen=True)
class Processes:
    """Which one this process is.

    Attributes:
        rank: from 0, over all machines.
        world_size: processes in all.
        local_rank: from 0, on this machine.
        meeting_point: where they find each other, as ``torch.distributed`` takes it.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    meeting_point: str = "env://"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Processes:
        """What torchrun or submitit says; a process of its own where neither has started this one.

        Args:
            environment: default: this process's. Inside a job of submitit's, that one is read in any case.

        Raises:
            ConfigError: the launcher's variables are no numbers.
        """
        found = os.environ if environment is None else environment
        if "RANK" in found and "WORLD_SIZE" in found:
            try:
                rank, size = int(found["RANK"]), int(found["WORLD_SIZE"])
                return cls(rank, size, int(found.get("LOCAL_RANK", 0)))
            except ValueError as cause:
                raise ConfigError(
                    f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers, as torchrun sets: {cause}"
                ) from cause
        if found.get("SUBMITIT_EXECUTOR") == "slurm" and int(found.get("SLURM_NTASKS", 1)) > 1:
            return cls._in_slurm()
        return cls()

    @classmethod
    def _in_slurm(cls) -> Processes:
        from submitit.helpers import TorchDistributedEnvironment  # takes a while to import

        task = TorchDistributedEnvironment()
        return cls(task.rank, task.world_size, task.local_rank, f"tcp://{task.master_addr}:{task.master_port}")


@contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """The default process group of ``torch.distributed`` in the block: NCCL for GPUs, gloo for CPUs.

    A single process gets none.

    Args:
        processes: all of them must enter the block.
        device: of this process.

    Raises:
        LostProcessError: another one has ended, and says itself why.
    """
    if processes.world_size == 1:
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=processes.meeting_point,
        rank=processes.rank,
        world_size=processes.world_size,
        timeout=_LONGEST_WAIT,
    )
    try:
        yield
    except RuntimeError as cause:
        if not _is_of_others(cause):
            raise
        time.sleep(_SETTLE_S)
        raise LostProcessError(
            f"process {processes.rank} of {processes.world_size} stops, because another one has ended: see its error"
        ) from cause
    finally:
        dist.destroy_process_group()


def _is_of_others(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def of_first(value: T) -> T:
    """The ``value`` of process 0, in all processes of the group; without a group the value itself. All must call it."""
    if not dist.is_initialized():
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def wait_for_all() -> None:
    """Return when all processes of the group have come here; at once without a group."""
    if dist.is_initialized():
        dist.barrier()
