"""Numbers of a stage that are constant, or go along a line from its first to its last iteration."""

from __future__ import annotations

from dinov2_noise.errors import ConfigError

Ramp = float | tuple[float, ...]
"""A constant, or a pair (first, last)."""


def ends(ramp: Ramp) -> tuple[float, float]:
    """First and last value."""
    return (ramp[0], ramp[-1]) if isinstance(ramp, tuple) else (ramp, ramp)


def on_line(ramp: Ramp, progress: float) -> float:
    """The value at ``progress``, 0 for the first and 1 for the last iteration; both ends are met exactly."""
    first, last = ends(ramp)
    return last if progress == 1 else first + (last - first) * progress


def check_pair(ramp: Ramp, key: str) -> None:
    """Check that a ramp has two ends.

    Raises:
        ConfigError: it has not.
    """
    if isinstance(ramp, tuple) and len(ramp) != 2:
        raise ConfigError(f"{key} is {list(ramp)}: a ramp is a pair [first, last]")


def shown(ramp: Ramp) -> str:
    """``0.5``, or ``0 to 0.5``."""
    first, last = ends(ramp)
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"
