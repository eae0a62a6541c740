"""Other people's denoisers, as ``--model module:factory`` finds them from this folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mean(nn.Module):
    """The mean of side x side pixels. With ``kill_at``, a file with a number, it kills its process at that call."""

    def __init__(self, side: int, kill_at: Path | None) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.full((3, 1, side, side), 1 / side**2))
        self.kill_at = kill_at

    def forward(self, x: Tensor) -> Tensor:
        if self.kill_at is not None and self.kill_at.exists():
            calls = int(self.kill_at.read_text()) - 1
            self.kill_at.write_text(str(calls))
            if calls == 0:
                self.kill_at.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        reach = self.kernel.shape[-1] // 2
        return F.conv2d(F.pad(x, (reach,) * 4, mode="replicate"), self.kernel, groups=3)


def mean(side: int = 3, kill_at: str | None = None) -> nn.Module:
    return Mean(side, None if kill_at is None else Path(kill_at))


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


GENERATOR = torch.Generator()

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "levels": lambda x: x * 255,
    "signed": lambda x: 2 * x - 1,
    "smaller": lambda x: F.max_pool2d(x, 2),
    "gray": lambda x: x.mean(dim=1, keepdim=True),
    "broken": lambda x: x * float("nan"),
    "broken where wide": lambda x: x * (float("nan") if x.shape[-1] > 64 else 1),
    "random": lambda x: x + 0.01 * torch.randn(x.shape, generator=GENERATOR),
    "halved in place": lambda x: x.mul_(0.5),
    "failing": lambda x: x.view(7),
    "failing where wide": lambda x: x.view(7) if x.shape[-1] > 64 else x,
}


def function(name: str) -> nn.Module:
    return Function(FUNCTIONS[name])


def of_side(multiple_px: object) -> nn.Module:
    module = Function(FUNCTIONS["halved in place"])
    module.side_multiple_px = multiple_px  # type: ignore[assignment]
    return module


def missing_file() -> nn.Module:
    raise FileNotFoundError("no such file: drunet.pth")


def no_module() -> object:
    return torch.relu
