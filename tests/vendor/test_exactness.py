"""Neighbor2Neighbor (arXiv 2101.02824) against references that share no code with it, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.nn import functional as F

from neighbor2neighbor import (
    ORDERED_PAIRS,
    TrainingConfig,
    UNet,
    draw_pairs,
    learning_rate_at,
    loss_weight_at,
    neighbor_loss,
    ramp,
    subsample,
)

Network = Callable[[torch.Tensor], torch.Tensor]


def noisy_images(seed: int, side_px: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, side_px, side_px, generator=generator, dtype=torch.float64)


def masked_pixels(image: torch.Tensor, pairs: torch.Tensor, member: int) -> torch.Tensor:
    """A neighbour image by space-to-depth and a one-hot mask over the four pixels of a cell: no index arithmetic."""
    cells = F.pixel_unshuffle(image.transpose(0, 1).flatten(0, 1)[:, None], 2)  # (C B, 4, H/2, W/2)
    pixel = torch.tensor([pair[member] for pair in ORDERED_PAIRS])[pairs]
    mask = F.one_hot(pixel, 4).permute(0, 3, 1, 2).repeat(image.shape[1], 1, 1, 1)
    picked = (cells * mask).sum(1)
    return picked.unflatten(0, (image.shape[1], image.shape[0])).transpose(0, 1)


def test_neighbour_images_equal_masks_on_space_to_depth() -> None:
    image = noisy_images(0)
    pairs = draw_pairs(image.shape, torch.Generator().manual_seed(1))
    for member, neighbour in enumerate(subsample(image, pairs)):
        assert torch.equal(neighbour, masked_pixels(image, pairs, member))


def test_each_cell_of_an_image_draws_each_pair_equally_often() -> None:
    """Not only on average over the image: chi-square at 64 places, and independence from one draw to the next."""
    generator, draws = torch.Generator().manual_seed(0), 4000
    drawn = torch.stack([draw_pairs((1, 3, 16, 16), generator).flatten() for _ in range(draws)])  # (draws, 64)
    counts = F.one_hot(drawn, 8).sum(0).double()
    chi_square = ((counts - draws / 8) ** 2 / (draws / 8)).sum(1)
    assert float(chi_square.max()) < 31.6  # 64 places, 7 degrees of freedom: the 1 - 0.003 / 64 quantile
    assert float(chi_square.sum()) < 546.0  # 448 degrees of freedom, 0.999 quantile
    successive = torch.bincount((drawn[:-1] * 8 + drawn[1:]).flatten(), minlength=64).double()
    expected = successive.sum() / 64
    assert float(((successive - expected) ** 2 / expected).sum()) < 103.4  # 63 degrees of freedom, 0.999 quantile


def reference_loss(network: Network, noisy: torch.Tensor, pairs: torch.Tensor, weight: float) -> torch.Tensor:
    """The paper's loss written out, f(y) as plain numbers."""
    denoised = network(noisy).detach().clone()
    error = network(masked_pixels(noisy, pairs, 0)) - masked_pixels(noisy, pairs, 1)
    gap = masked_pixels(denoised, pairs, 0) - masked_pixels(denoised, pairs, 1)
    return (error**2).sum() / error.numel() + weight * ((error - gap) ** 2).sum() / error.numel()


def adam(parameters: list[torch.Tensor], learning_rate: float) -> Iterator[None]:
    """Adam (Kingma, Ba, arXiv 1412.6980, algorithm 1) with its default constants; one step per ``next``."""
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    step = 0
    while True:
        step += 1
        for parameter, m, v in zip(parameters, first, second, strict=True):
            assert parameter.grad is not None
            m.copy_(0.9 * m + 0.1 * parameter.grad)
            v.copy_(0.999 * v + 0.001 * parameter.grad**2)
            parameter.data -= learning_rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            parameter.grad = None
        yield


def test_three_optimizer_steps_equal_the_paper_written_out() -> None:
    """Same pairs, own loss, own Adam: losses, gradients and weights agree to rounding."""
    model = UNet(n_feature=3, generator=torch.Generator().manual_seed(0)).double()
    reference = UNet(n_feature=3).double()
    reference.load_state_dict(model.state_dict())
    ours = torch.optim.Adam(model.parameters(), lr=3e-4)
    theirs = adam(list(reference.parameters()), 3e-4)
    for step in range(3):
        noisy, weight = noisy_images(step)[:1], ramp(step + 1, 3)
        pairs = draw_pairs(noisy.shape, torch.Generator().manual_seed(step))
        g1, g2 = subsample(noisy, pairs)
        with torch.no_grad():
            denoised = model(noisy)
        loss = neighbor_loss(model(g1), g2, *subsample(denoised, pairs), weight).total
        expected = reference_loss(reference, noisy, pairs, weight)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
        ours.zero_grad()
        loss.backward()
        expected.backward()
        for mine, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-14)
        ours.step()
        next(theirs)
    for mine, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("epochs", [100, 10, 5])
def test_learning_rate_equals_a_scheduler_stepped_once_per_epoch(epochs: int) -> None:
    """Epochs 1 to 20 of 100 at the full rate, 21 to 40 at half of it, ...: in every step of every epoch."""
    n_images, config = 11, TrainingConfig(epochs=epochs, batch_size=4)
    per_epoch = config.steps_per_epoch(n_images)
    assert per_epoch == 2
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=3e-4)
    milestones = [epochs * fifth // 5 for fifth in (1, 2, 3, 4)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.5)
    for epoch in range(epochs):
        expected = optimizer.param_groups[0]["lr"]
        assert expected == pytest.approx(3e-4 / 2 ** (5 * epoch // epochs), rel=1e-12)
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            assert learning_rate_at(step, n_images, config) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        schedule.step()


def test_regularization_weight_follows_the_epoch_counted_from_one() -> None:
    config = TrainingConfig(batch_size=4)
    weights = [loss_weight_at(step, 8, config) for step in range(config.total_steps(8))]
    assert weights == pytest.approx([2.0 * epoch / 100 for epoch in range(1, 101) for _ in range(2)], rel=1e-12)
