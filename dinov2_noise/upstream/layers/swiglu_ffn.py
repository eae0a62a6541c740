"""``dinov2.layers.swiglu_ffn``: nothing to replace (upstream has its own fallback of the same parameters), only its
warning is kept back.
"""

from __future__ import annotations

from types import ModuleType

from dinov2_noise.upstream.layers.attention import surround as surround


def attach(module: ModuleType) -> None:
    """Upstream's fallback is equal to xFormers' SwiGLU and has the same parameter names."""
