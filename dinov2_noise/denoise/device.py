"""The choice of a device."""

from __future__ import annotations

import torch

from dinov2_noise.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """``"auto"`` is the GPU where there is one, otherwise the CPU; any other name is torch's.

    Raises:
        ConfigError: torch does not know or does not have the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise ConfigError(f"device {name!r} is unknown: use auto, cpu, cuda or cuda:N") from cause
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} is asked for, but torch finds no GPU: use auto or cpu")
    return device
