"""The entry point of group ``dinov2.plugins``: what `import dinov2` calls on a patched checkout."""

from __future__ import annotations

import sys

from dinov2_noise.upstream import SEAMS, importing


def activate() -> None:
    """Register the seams of `dinov2_noise.upstream`; nothing is imported or replaced before upstream imports it.

    Calling it again does nothing.

    Raises:
        PluginError: upstream's modules have been imported before.
    """
    importing.install(SEAMS)


def is_active() -> bool:
    """Whether the seams are registered in this process."""
    return any(isinstance(finder, importing.SeamFinder) for finder in sys.meta_path)
