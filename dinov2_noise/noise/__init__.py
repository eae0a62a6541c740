"""Noise: names → models, image + seed → noisy image, folder → noisy folder."""

from dinov2_noise.noise.folder import add_noise, output_name
from dinov2_noise.noise.models import FAMILIES, Gaussian, NoiseModel, Shot, Speckle, parse
from dinov2_noise.noise.seeding import DEFAULT_SEED, image_seed, noisy_uint8

__all__ = [
    "DEFAULT_SEED",
    "FAMILIES",
    "Gaussian",
    "NoiseModel",
    "Shot",
    "Speckle",
    "add_noise",
    "image_seed",
    "noisy_uint8",
    "output_name",
    "parse",
]
