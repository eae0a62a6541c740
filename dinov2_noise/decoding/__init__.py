"""Image files → pixels: which formats, which values are black and white."""

from dinov2_noise.decoding.images import decode_pixels, decode_size, image_size, load_pixels, load_rgb
from dinov2_noise.decoding.values import DTYPE_RANGE, RANGE_FORMS, ValueRange, parse_range, to_float32, to_uint8

__all__ = [
    "DTYPE_RANGE",
    "RANGE_FORMS",
    "ValueRange",
    "decode_pixels",
    "decode_size",
    "image_size",
    "load_pixels",
    "load_rgb",
    "parse_range",
    "to_float32",
    "to_uint8",
]
