"""torchvision, which the toy's tests compare with, must be importable beside a CPU-only torch."""

from __future__ import annotations

from dinov2_noise.torchvision_ops import declare_missing_ops

declare_missing_ops()
