"""Reading a pickle that may come from anywhere: plain containers, numbers, text and NumPy arrays; nothing is run.

A pickle names functions, which the ordinary reader imports and calls. This one knows six of NumPy's names by which
arrays are stored, three of the standard library's for bytes and sets, and refuses every other.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from dinov2_noise.errors import MetadataError

# The functions behind arrays and NumPy's scalars, under whatever private name this NumPy has them.
_ARRAY: Any = np.empty(0).__reduce__()[0]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_BUFFER: Any = np.empty(0).__reduce_ex__(5)[0]
_KINDS = "biufUS"  # numbers and text; not objects


def _dtype(name: str, *_flags: bool) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(name)
    if found.kind not in _KINDS:
        raise pickle.UnpicklingError(f"it holds an array of {found}")
    return found


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return codecs.encode(text, "latin1")


def _no_bytes() -> bytes:
    return b""


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("multiarray", "_reconstruct"): _ARRAY,
    ("multiarray", "scalar"): _SCALAR,
    ("numeric", "_frombuffer"): _BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,  # so an empty array is stored
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed numpy.core to numpy._core
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        found = _ADMITTED.get((short, name))
        if found is None or (short in ("multiarray", "numeric") and short == module):
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return found


def read_plain(data: bytes, name: str) -> Any:
    """The content of a pickle, of Python 2 or 3.

    Args:
        data: the bytes of the file.
        name: what to call it in errors.

    Raises:
        MetadataError: it is no pickle, is cut off, or holds anything but containers, numbers, text and arrays.
    """
    try:
        return _Plain(io.BytesIO(data), encoding="latin1").load()
    except Exception as cause:  # a damaged pickle may raise anything
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise MetadataError(
            f"cannot read {name} as a pickle of plain lists and arrays ({reason}). Nothing in it was run: a pickle can "
            "hold programs. Take the official file, or write the same content as JSON"
        ) from cause
