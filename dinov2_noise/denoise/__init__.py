"""Train a denoiser on noisy images alone, and denoise folders with it (paper: Neighbor2Neighbor, arXiv 2101.02824)."""

from dinov2_noise.denoise.apply import apply_denoiser
from dinov2_noise.denoise.train import train_denoiser

__all__ = ["apply_denoiser", "train_denoiser"]
