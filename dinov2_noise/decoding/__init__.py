"""Image files → pixels: which formats, which values are black and white."""

from dinov2_noise.decoding.rgb import image_size, load_rgb
from dinov2_noise.decoding.values import DTYPE_RANGE, ValueRange, parse_range

__all__ = ["DTYPE_RANGE", "ValueRange", "image_size", "load_rgb", "parse_range"]
