"""Decoding of image files; the code stands in :mod:`dinov2_noise.noise.decode`, where the data flow begins."""

from __future__ import annotations

from dinov2_noise.noise.decode import image_size, load_rgb

__all__ = ["image_size", "load_rgb"]
