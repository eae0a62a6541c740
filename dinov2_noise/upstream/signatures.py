"""Compare what upstream offers with what a seam was written for, before anything is replaced."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dinov2_noise.errors import PluginError


def _shape(function: Callable[..., Any]) -> list[tuple[str, Any, bool]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default is not inspect.Parameter.empty) for p in parameters]


def expect_signature(owner: Any, name: str, written_for: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``owner.name`` if it takes the parameters of ``written_for``: same names, kinds, and the same ones
    optional.

    Annotations and default values may differ (they do between upstream's releases).

    Raises:
        PluginError: the attribute is missing or its signature differs; both signatures are printed.
    """
    found: Callable[..., Any] | None = getattr(owner, name, None)
    label = f"{getattr(owner, '__module__', None) or ''}.{owner.__name__}".lstrip(".")
    if not callable(found):
        raise PluginError(
            f"{label} has no callable {name!r}: this version of DINOv2 is not one dinov2-noise was written for"
        )
    if _shape(found) != _shape(written_for):
        raise PluginError(
            f"{label}.{name} has another signature than dinov2-noise was written for:\n"
            f"  found:       {inspect.signature(found)}\n"
            f"  written for: {inspect.signature(written_for)}\n"
            "Use the DINOv2 version named in the README, or a newer dinov2-noise."
        )
    return found
