"""Pixels that are taken apart come together again, and correlated noise is nearly white in between."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neighbor2neighbor import (
    Strided,
    Trainer,
    TrainingConfig,
    UNet,
    draw_pairs,
    from_phases,
    subsample,
    to_phases,
    train,
)
from neighbor2neighbor.crops import Crops, CropStream

SMALL = TrainingConfig(steps=2, batch_size=2, crop_px=128, learning_rate=1e-3, n_feature=4, stride=2)


def image(batch: int = 2, height: int = 12, width: int = 18) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def correlation(noise: torch.Tensor) -> float:
    """Between neighbours in a row."""
    return float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean())


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_phases_are_every_stride_th_pixel_and_come_together_again(stride: int) -> None:
    images = image()
    phases = to_phases(images, stride)
    assert phases.shape == (2 * stride**2, 3, 12 // stride, 18 // stride)
    for number in range(2):
        for row in range(stride):
            for column in range(stride):
                phase = phases[number * stride**2 + row * stride + column]
                assert torch.equal(phase, images[number, :, row::stride, column::stride])
    assert torch.equal(from_phases(phases, stride), images)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of the stride 5"):
        to_phases(image(), 5)
    with pytest.raises(ValueError, match="stride 2 makes 4 phases of an image, got 2 in all"):
        from_phases(image(), 2)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        Strided(nn.Identity(), 0)
    with pytest.raises(ValueError, match="multiples of 64 px"):
        Strided(UNet(n_feature=4), 2)(torch.zeros(1, 3, 64, 96))
    assert Strided(nn.Identity(), 3).side_multiple_px == 96


def test_each_phase_is_denoised_by_itself() -> None:
    net = UNet(n_feature=4, generator=torch.Generator().manual_seed(1)).eval()
    images = image(1, 64, 128)
    with torch.no_grad():
        denoised = Strided(net, 2)(images)
        for row in (0, 1):
            for column in (0, 1):
                phase = images[..., row::2, column::2]
                torch.testing.assert_close(denoised[..., row::2, column::2], net(phase), rtol=0, atol=1e-6)


def test_noise_correlated_over_a_pixel_is_nearly_white_in_its_phases() -> None:
    white = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    blurred = F.avg_pool2d(white, 2, stride=1)
    assert correlation(blurred) == pytest.approx(0.5, abs=0.01)
    assert correlation(to_phases(blurred[..., :254, :254], 2)) == pytest.approx(0.0, abs=0.01)


def test_training_takes_phases_of_the_crops() -> None:
    """Parity with the loss written out on the phases."""
    data = [*image(3, 130, 140)]
    trainer = Trainer(data, SMALL)
    net = UNet(n_feature=4)
    net.load_state_dict(trainer.model.state_dict())
    crops = Crops(data, 128, SMALL.seed)
    noisy = to_phases(torch.stack([crops[draw] for draw in CropStream(3, SMALL.seed, 0, 2)]), 2)
    pairs: list[torch.Tensor] = []

    def remembering_draw(*arguments: object) -> torch.Tensor:
        pairs.append(draw_pairs(*arguments))  # type: ignore[arg-type]
        return pairs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neighbor2neighbor.training.draw_pairs", remembering_draw)
        record = next(trainer.steps())
    assert pairs[0].shape == (8, 32, 32)
    g1, g2 = subsample(noisy, pairs[0])
    with torch.no_grad():
        d1, d2 = subsample(net(noisy), pairs[0])
        difference = net(g1) - g2
    assert record.reconstruction == pytest.approx(float((difference**2).mean()), rel=1e-5)
    assert record.regularization == pytest.approx(float(((difference - d1 + d2) ** 2).mean()), rel=1e-5)


def test_result_is_strided_as_the_training_was() -> None:
    model = train([*image(3, 130, 140)], SMALL)
    assert isinstance(model, Strided)
    assert (model.stride, model.side_multiple_px, model.training) == (2, 64, False)


def test_crops_must_fit_the_stride() -> None:
    with pytest.raises(ValueError, match=r"crop_px must be a multiple of 192 \(64 times the stride 3\), got 256"):
        TrainingConfig(stride=3)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        TrainingConfig(stride=0)
    assert (SMALL.crop_multiple_px, TrainingConfig().crop_multiple_px) == (128, 64)
    with pytest.raises(ValueError, match="140x120 px, smaller than the crop of 128 px"):
        train([*image(1, 120, 140)], replace(SMALL, batch_size=1))
