"""Run code that says ``cuda`` on a machine without CUDA.

Upstream moves models and batches with ``.cuda()`` and ``device="cuda"``. In a process that trains or evaluates on a
CPU, a `torch.overrides.TorchFunctionMode` maps these to the CPU; with a GPU nothing here is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")


def _without_cuda(value: Any) -> Any:
    if isinstance(value, str) and value.split(":")[0] == "cuda":
        return _CPU
    if isinstance(value, torch.device) and value.type == "cuda":
        return _CPU
    return value


class CudaToCpu(TorchFunctionMode):
    """Calls with a CUDA device run on the CPU; ``Tensor.cuda`` returns the tensor itself."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        options = dict(kwargs or {})
        if "device" in options:
            options["device"] = _without_cuda(options["device"])
        if func is torch.Tensor.to:
            args = tuple(_without_cuda(argument) for argument in args)
        return func(*args, **options)


_active: CudaToCpu | None = None


def use_cpu() -> None:
    """Switch the mapping on for the rest of this process; the second call does nothing.

    Also replaced: ``torch.cuda.synchronize`` (nothing to wait for) and ``torch.cuda.current_device`` (upstream's
    evaluations pass its result on as a ``device``).
    """
    global _active
    if _active is not None:
        return
    _active = CudaToCpu()
    _active.__enter__()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize = lambda device=None: None
    torch.cuda.current_device = lambda: _CPU  # type: ignore[assignment, return-value]


def is_used() -> bool:
    """Whether `use_cpu` has been called in this process."""
    return _active is not None
