"""Writing state dicts as safetensors: the format cannot run code, and every library reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2_noise.export.extras import require

WEIGHTS_NAME = "model.safetensors"


def require_safetensors() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    return require("safetensors.torch", "safetensors", "exporting")


def save_tensors(state: Mapping[str, Tensor], folder: Path) -> None:
    """Write ``model.safetensors``; views that share memory are written each by itself."""
    separate = {name: _alone(value.detach()) for name, value in state.items()}
    require_safetensors().save_file(separate, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    (folder / WEIGHTS_NAME).chmod(0o644)  # the library lets nobody else read it


def _alone(value: Tensor) -> Tensor:
    """The tensor, copied only where its memory holds more than it."""
    value = value.contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()
