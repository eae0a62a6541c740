"""Digits side by side on canvases, and a denoiser that has seen noisy ones only."""

from __future__ import annotations

import numpy as np
import torch
from digit_files import blobs

from dinov2_noise.toy.denoised import denoise, from_canvases, to_canvases, train_on
from dinov2_noise.toy.jobs import psnr_db, snr_db
from dinov2_noise.toy.seeding import Stream, generator
from dinov2_noise.toy.train import add_noise


def test_digits_lie_on_canvases_row_by_row() -> None:
    digits = torch.rand(70, 28, 28, generator=generator(0, Stream.ORDER))
    canvases = to_canvases(digits)
    assert canvases.shape == (2, 3, 224, 224)
    assert torch.equal(canvases[0, 1, 28:56, 56:84], digits[8 + 2])
    assert torch.equal(canvases[1, 0, :28, 6 * 28 : 7 * 28], digits[0])  # the last canvas is filled up with the first
    torch.testing.assert_close(from_canvases(canvases, 70), digits)


def test_few_digits_fill_a_canvas_several_times() -> None:
    digits = torch.rand(3, 28, 28, generator=generator(0, Stream.ORDER))
    canvases = to_canvases(digits)
    assert canvases.shape == (1, 3, 224, 224)
    torch.testing.assert_close(from_canvases(canvases, 64), digits[torch.arange(64) % 3])


def test_the_denoiser_removes_noise_that_it_has_only_seen_with_digits() -> None:
    clean = torch.from_numpy(blobs(320, 0)[0]).float() / 255
    noisy = add_noise(clean, 0.4, generator(0, Stream.FIXED_NOISE))
    model = train_on(noisy[:256], steps=12, seed=0)
    cleaned = denoise(model, noisy[256:])
    assert 0 <= cleaned.min().item() < cleaned.max().item() <= 1
    assert psnr_db(cleaned, clean[256:]) > psnr_db(noisy[256:], clean[256:]) + 0.2


def test_psnr_and_snr() -> None:
    clean = torch.full((2, 28, 28), 0.5)
    noisy = clean + torch.tensor([0.1, 0.05])[:, None, None]
    assert np.isclose(psnr_db(noisy, clean), -10 * np.log10((0.01 + 0.0025) / 2))
    assert np.isclose(snr_db(clean, noisy), (10 * np.log10(25) + 10 * np.log10(100)) / 2)
    with_black = torch.cat([clean, torch.zeros(1, 28, 28)])
    assert np.isclose(snr_db(with_black, torch.cat([noisy, torch.ones(1, 28, 28)])), snr_db(clean, noisy))
