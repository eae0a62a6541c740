"""The choice of a device."""

from __future__ import annotations

import torch

from dinov2_noise.denoise.parallel import Processes
from dinov2_noise.errors import ConfigError


def choose_device(name: str, processes: Processes | None = None) -> torch.device:
    """``"auto"`` is the GPU where there is one, otherwise the CPU; any other name is torch's.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        processes: where several work together, each gets the GPU of its own number on its machine.

    Raises:
        ConfigError: torch does not know or does not have the device, or it is one GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise ConfigError(f"device {name!r} is unknown: use auto, cpu, cuda or cuda:N") from cause
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} is asked for, but torch finds no GPU: use auto or cpu")
    if processes is None or processes.world_size == 1:
        return device
    if device.index is not None:
        raise ConfigError(f"device {name!r} is one GPU, for {processes.world_size} processes: use auto or cuda")
    return torch.device("cuda", own_gpu(processes.local_rank, torch.cuda.device_count()))


def own_gpu(local_rank: int, visible: int) -> int:
    """Index of the GPU of a process, of the ``visible`` ones; a launcher may show each process its own one only.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if visible == 1:
        return 0
    if local_rank >= visible:
        raise ConfigError(f"process {local_rank} of this machine finds {visible} GPUs only: start fewer processes")
    return local_rank
