"""Noise-robust and cheaper self-supervised pretraining, as a plug-in for DINOv2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinov2_noise.export.features import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load` is imported when it is first asked for: most uses of this package need no network."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dinov2_noise.export.features import load

    return load
