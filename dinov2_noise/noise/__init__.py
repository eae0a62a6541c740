"""Noise: names → models, image + seed → noisy image, folder → noisy folder."""

from dinov2_noise.noise.folder import add_noise, output_name
from dinov2_noise.noise.models import Gaussian, NoiseModel, PixelNoise, Shot, Speckle
from dinov2_noise.noise.registry import FAMILIES, LevelRange, parse, parse_pixel_noise
from dinov2_noise.noise.seeding import DEFAULT_SEED, image_seed, noise_of, noisy_float64, noisy_uint8

__all__ = [
    "DEFAULT_SEED",
    "FAMILIES",
    "Gaussian",
    "LevelRange",
    "NoiseModel",
    "PixelNoise",
    "Shot",
    "Speckle",
    "add_noise",
    "image_seed",
    "noise_of",
    "noisy_float64",
    "noisy_uint8",
    "output_name",
    "parse",
    "parse_pixel_noise",
]
