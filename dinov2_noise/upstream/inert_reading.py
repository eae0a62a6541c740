"""Read a torch file that holds objects of foreign classes without running anything of them.

`torch.load` reads such a file either not at all (``weights_only=True``) or by calling whatever the file names. Here
names outside a short list are an error, and the classes of ``torch.distributed`` become `Inert` objects, which keep
what they were made of and do nothing.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.errors import CheckpointError


class Inert:
    """Stands for an object whose class is not loaded; ``state`` is what it would have restored itself from."""

    state: Any = None

    def __new__(cls, *_args: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_args: Any) -> None:
        """Takes what the real class would."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def attribute(self, name: str) -> Any:
        """An attribute of the real object; pickle keeps them as one dictionary, or two for classes with slots.

        Raises:
            KeyError: there is none of that name.
        """
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        for part in parts:
            if isinstance(part, dict) and name in part:
                return part[name]
        raise KeyError(name)


def _ignore(*_args: Any) -> None:
    """For layouts, devices and hollow outer tensors, which nothing here asks about."""


def _nested_class(_owner: Any, _name: str) -> type[Inert]:
    """In place of ``getattr``, by which pickle reaches a class inside a class."""
    return Inert


def _rebuild(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor of a subclass: of plain tensors and parameters the data, of others the state."""
    if isinstance(kind, type) and issubclass(kind, Inert):
        found = kind()
        found.state = state
        return found
    return function(*arguments)


def _number(kind: Any, raw: bytes) -> Any:
    """A NumPy scalar, such as the learning rates that upstream's schedules put into the optimizer."""
    return np.frombuffer(raw, dtype=kind)[0].item()


def _latin1(text: str, _encoding: str) -> bytes:
    """How pickle's protocol 2 writes bytes."""
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "Tensor"): Tensor,
    ("torch", "device"): _ignore,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_wrapper_subclass"): _ignore,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild,
    ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
    ("torch.serialization", "_get_layout"): _ignore,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "getattr"): _nested_class,
    ("builtins", "getattr"): _nested_class,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module.startswith("torch.distributed."):
            return Inert
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which does not belong into a checkpoint")


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def read_inert(path: Path) -> Any:
    """The content of a torch file, on the CPU, objects of ``torch.distributed`` as `Inert` ones.

    Raises:
        CheckpointError: the file is truncated, no torch file, or names something else than checkpoints hold.
    """
    reader = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)
    try:
        # Not weights_only, which knows no such objects: the reader above decides what may be called.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader, mmap=True)
    except Exception as cause:
        raise CheckpointError(f"checkpoint {path} cannot be read ({cause}): is the file complete?") from cause
