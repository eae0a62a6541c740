"""torchvision must be importable before the tests of its transforms are."""

from __future__ import annotations

from dinov2_noise.torchvision_ops import declare_missing_ops

declare_missing_ops()
