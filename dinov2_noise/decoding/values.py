"""From the values a file stores to [0, 1]: which range of them is black to white."""

from __future__ import annotations

from dataclasses import dataclass

from dinov2_noise.errors import ConfigError


@dataclass(frozen=True)
class ValueRange:
    """Which stored values become black and white. ``dtype``: the whole range of the stored type.

    Attributes:
        kind: ``dtype``.
    """

    kind: str = "dtype"

    @property
    def name(self) -> str:
        """As it is written in commands and manifests: ``parse_range(range.name) == range``."""
        return self.kind


DTYPE_RANGE = ValueRange()


def parse_range(text: str) -> ValueRange:
    """The range called ``text``.

    Raises:
        ConfigError: there is no such range.
    """
    if text != "dtype":
        raise ConfigError(f"unknown range {text!r}: valid is dtype")
    return DTYPE_RANGE
