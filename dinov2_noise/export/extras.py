"""Libraries that only some commands need."""

from __future__ import annotations

import importlib
from typing import Any

from dinov2_noise.errors import ConfigError
from dinov2_noise.torchvision_ops import declare_missing_ops


def require(module: str, extra: str, what: str) -> Any:
    """Import ``module``.

    Args:
        module: its name.
        extra: the extra of this package that installs it.
        what: what needs it, as the subject of a sentence.

    Raises:
        ConfigError: it is not installed, or cannot be imported; tells which command installs it.
    """
    declare_missing_ops()  # transformers and timm import torchvision
    try:
        return importlib.import_module(module)
    except ImportError as cause:
        why = "" if isinstance(cause, ModuleNotFoundError) and cause.name == module else f" ({cause})"
        raise ConfigError(f"{what} needs {module}{why}: pip install 'dinov2-noise[{extra}]'") from cause
