"""Read a torch file that holds objects of foreign classes without running anything of them.

`torch.load` reads such a file either not at all (``weights_only=True``) or by calling whatever the file names, code in
a TorchScript archive included. Here the archive is opened as what it is, a zip file of one pickle and the tensors'
bytes. Names outside a short list are an error, and the classes of ``torch.distributed`` become `Inert` objects, which
keep what they were made of and do nothing.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


class _Call:
    """A function that a pickle may call but not change: it could set a plain one's defaults."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, _state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function, which does not belong into a checkpoint")


class _NumberKind:
    """In place of ``numpy.dtype``, which believes whatever sizes and fields a file gives it."""

    def __init__(self, code: str, *_args: Any) -> None:
        self.code, self.byte_order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.byte_order = state[1]


class _Storage(NamedTuple):
    data: torch.UntypedStorage
    dtype: torch.dtype


_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _number(kind: Any, raw: bytes) -> Any:
    """A NumPy scalar, such as the learning rates that upstream's schedules put into the optimizer."""
    if not isinstance(kind, _NumberKind) or kind.code not in _NUMBERS or kind.byte_order not in ("<", ">", "=", "|"):
        raise pickle.UnpicklingError(f"it holds a number of the kind {getattr(kind, 'code', kind)!r}")
    return np.frombuffer(raw, dtype=np.dtype(kind.byte_order + kind.code), count=1)[0].item()


def _tensor(storage: Any, offset: int, shape: Any, stride: Any, *_args: Any) -> Tensor:
    """``set_`` refuses to reach beyond the storage: a part of a mapped file cannot grow."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("it holds a tensor without a storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage.data, offset, tuple(shape), tuple(stride))


def _parameter(data: Any, *_args: Any) -> Any:
    return data


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


def _latin1(text: str, _encoding: str) -> bytes:
    """How pickle's protocol 2 writes bytes."""
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "Tensor"): "Tensor",  # named as a kind only
    ("torch.nn.parameter", "Parameter"): "Parameter",
    ("torch", "device"): _Call(_ignore),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("torch._utils", "_rebuild_wrapper_subclass"): _Call(_ignore),
    ("torch._tensor", "_rebuild_from_type_v2"): _Call(_rebuild),
    ("torch.serialization", "_get_layout"): _Call(_ignore),
    ("numpy", "dtype"): _NumberKind,
    ("numpy.core.multiarray", "scalar"): _Call(_number),
    ("numpy._core.multiarray", "scalar"): _Call(_number),
    ("_codecs", "encode"): _Call(_latin1),
    ("__builtin__", "getattr"): _Call(_nested_class),
    ("builtins", "getattr"): _Call(_nested_class),
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
    ("torch.storage", "UntypedStorage"): torch.uint8,
}


class _Archive:
    """The zip file that `torch.save` writes: ``<name>/data.pkl`` and ``<name>/data/<key>``, one per storage."""

    def __init__(self, path: Path, zipped: zipfile.ZipFile) -> None:
        self._path, self._zipped = path, zipped
        pickles = [name for name in zipped.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("it is no file of torch.save")
        self._prefix = pickles[0].removesuffix("data.pkl")
        order = f"{self._prefix}byteorder"
        if order in zipped.namelist() and zipped.read(order).decode() != sys.byteorder:
            raise pickle.UnpicklingError("it was written on a machine of another byte order")
        self._bytes = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
        self._storages: dict[str, torch.UntypedStorage] = {}

    def pickle(self) -> bytes:
        return self._zipped.read(f"{self._prefix}data.pkl")

    def storage(self, key: str) -> torch.UntypedStorage:
        """Part of the mapped file: what nobody asks for is not read."""
        if key not in self._storages:
            info = self._zipped.getinfo(f"{self._prefix}data/{key}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError("it is compressed")
            with self._path.open("rb") as stream:
                stream.seek(info.header_offset)
                name_bytes, extra_bytes = struct.unpack("<26x2H", stream.read(30))
            start = info.header_offset + 30 + name_bytes + extra_bytes
            if start + info.file_size > len(self._bytes):
                raise pickle.UnpicklingError(f"its part {info.filename} is incomplete")
            self._storages[key] = self._bytes[start : start + info.file_size]
        return self._storages[key]


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: _Archive) -> None:
        super().__init__(io.BytesIO(archive.pickle()))
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module.startswith("torch.distributed."):
            return Inert
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which does not belong into a checkpoint")

    def persistent_load(self, name: Any) -> _Storage:
        kind, dtype, key, _location, _size = name
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it holds a {kind!r} of the kind {dtype!r}")
        return _Storage(self._archive.storage(str(key)), dtype)


def read_inert(path: Path) -> Any:
    """The content of a torch file, on the CPU, objects of ``torch.distributed`` as `Inert` ones.

    Tensors lie in the mapped file, which may be deleted but not shortened meanwhile; writing into them does not
    change it.

    Raises:
        CheckpointError: the file is truncated, no torch file, or names something else than checkpoints hold.
    """
    try:
        with zipfile.ZipFile(path) as zipped:
            return _Unpickler(_Archive(path, zipped)).load()
    except Exception as cause:
        raise CheckpointError(f"checkpoint {path} cannot be read ({cause}): is the file complete?") from cause
