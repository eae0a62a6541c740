"""Digits cleaned by Neighbor2Neighbor, which has seen noisy digits only.

The denoiser's network halves its input five times and training halves the image before: crops of 64 px at least, where
a digit has 28. So digits are laid side by side on canvases of 8 x 8 (224 px), without any padding between them: digits
have a black border, and a padding would need noise of its own. Crops fall anywhere on the canvas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinov2_noise.toy.seeding import Stream, generator
from neighbor2neighbor import TrainingConfig, UNet, denoise_batch, train

DIGITS_PER_SIDE = 8
_PER_CANVAS = DIGITS_PER_SIDE**2

# 3 channels are the network's; all three are the same. Width, residual and rate as in the budget for small machines.
N_FEATURE, CROP_PX, BATCH_SIZE, LEARNING_RATE, STEPS = 16, 64, 8, 1e-3, 400


def to_canvases(images: Tensor) -> Tensor:
    """``(N, 28, 28)`` to ``(ceil(N / 64), 3, 224, 224)``; the last canvas is filled up with the first digits again."""
    side = images.shape[-1]
    missing = -len(images) % _PER_CANVAS
    filling = torch.arange(missing) % len(images)
    full = torch.cat([images, images[filling]])
    rows = full.view(-1, DIGITS_PER_SIDE, DIGITS_PER_SIDE, side, side).transpose(2, 3)
    canvases = rows.reshape(-1, 1, DIGITS_PER_SIDE * side, DIGITS_PER_SIDE * side)
    return canvases.expand(-1, 3, -1, -1)


def from_canvases(canvases: Tensor, n_images: int) -> Tensor:
    """The first ``n_images`` digits of `to_canvases`, their three channels averaged."""
    side = canvases.shape[-1] // DIGITS_PER_SIDE
    rows = canvases.mean(dim=1).view(-1, DIGITS_PER_SIDE, side, DIGITS_PER_SIDE, side)
    return rows.transpose(2, 3).reshape(-1, side, side)[:n_images]


def train_on(noisy: Tensor, *, steps: int, seed: int) -> UNet:
    """Train a denoiser on noisy digits ``(N, 28, 28)``, in [0, 1]; each has one realisation of its noise."""
    shuffled = noisy[torch.randperm(len(noisy), generator=generator(seed, Stream.CANVASES))]
    config = TrainingConfig(
        steps=steps,
        batch_size=BATCH_SIZE,
        crop_px=CROP_PX,
        learning_rate=LEARNING_RATE,
        n_feature=N_FEATURE,
        residual=True,
        seed=seed,
    )
    model = train(list(to_canvases(shuffled)), config)
    assert isinstance(model, UNet)
    return model


def denoise(model: UNet, noisy: Tensor) -> Tensor:
    """Denoised digits ``(N, 28, 28)``, in [0, 1]; laid side by side in the order they come in."""
    cleaned = denoise_batch(model, to_canvases(noisy), max_pixels=4 * 224**2)
    return from_canvases(cleaned, len(noisy)).clamp(0, 1)
