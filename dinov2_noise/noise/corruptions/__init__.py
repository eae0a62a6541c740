"""The corruptions of ImageNet-C: name and severity → a corrupted image; folder → a folder per cell."""

from dinov2_noise.noise.corruptions.corruption import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    Corruption,
    parse_corruption,
    parse_names,
    parse_severities,
)
from dinov2_noise.noise.corruptions.folder import corrupt_folder, parse_size
from dinov2_noise.noise.corruptions.image import STANDARD_SIZE_PX, corrupted_uint8, standard_crop

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "SEVERITIES",
    "STANDARD_SIZE_PX",
    "Corruption",
    "corrupt_folder",
    "corrupted_uint8",
    "parse_corruption",
    "parse_names",
    "parse_severities",
    "parse_size",
    "standard_crop",
]
