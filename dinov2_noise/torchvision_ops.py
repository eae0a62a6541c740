"""Make ``import torchvision`` work where its compiled operators cannot be loaded.

torchvision from the package index is linked against a CUDA build of torch. Beside a CPU-only torch its compiled part
does not load, and the import then ends in ``operator torchvision::nms does not exist``, because the Python part
registers shape functions for operators that nobody declared. Declared without an implementation they satisfy the
import; transforms, datasets and models never call them, and whoever does gets PyTorch's own NotImplementedError.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# Declarations last as long as this object.
_libraries: list[torch.library.Library] = []


def declare_missing_ops() -> tuple[str, ...]:
    """Declare the operators that ``import torchvision`` needs and that are not there; call it before that import.

    First the compiled part is loaded, exactly as torchvision itself does; where that succeeds nothing is declared, and
    torchvision's own loading of it later changes nothing. Calling this again, or without torchvision, does nothing.

    Returns:
        the operators declared by this call.
    """
    spec = find_spec("torchvision")  # does not import it
    if spec is None or not _missing():
        return ()
    _load_compiled_ops([Path(folder) for folder in spec.submodule_search_locations or ()])
    missing = _missing()
    if not missing:
        return ()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(_SCHEMAS[name])
    _libraries.append(library)
    return missing


def _missing() -> tuple[str, ...]:
    return tuple(name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name))


def _load_compiled_ops(folders: Sequence[Path]) -> None:
    for path in _compiled_parts(folders):
        # built for another torch: the case this module is for
        with suppress(ImportError, OSError):
            torch.ops.load_library(str(path))


def _compiled_parts(folders: Sequence[Path]) -> list[Path]:
    """``_C….so``, and ``_C_stable.so`` as torchvision has it from 0.29 on."""
    return [
        path
        for folder in folders
        for path in sorted(folder.glob("_C*"))
        if path.name.split(".")[0] in ("_C", "_C_stable") and path.name.endswith(tuple(EXTENSION_SUFFIXES))
    ]
