"""The random neighbour sub-sampler."""

from __future__ import annotations

import pytest
import torch

from neighbor2neighbor import ORDERED_PAIRS, draw_pairs, subsample


def numbered(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Every pixel holds its own place in the image; channel c adds c * H * W."""
    count = batch * channels * height * width
    return torch.arange(count, dtype=torch.float64).reshape(batch, channels, height, width)


def test_pairs_are_the_eight_ordered_neighbours() -> None:
    def adjacent(first: int, second: int) -> bool:
        rows, columns = abs(first // 2 - second // 2), abs(first % 2 - second % 2)
        return rows + columns == 1

    assert set(ORDERED_PAIRS) == {(i, j) for i in range(4) for j in range(4) if adjacent(i, j)}
    assert len(ORDERED_PAIRS) == 8


def test_values_equal_a_loop_over_cells() -> None:
    image = numbered(2, 3, 6, 10)
    pairs = draw_pairs(image.shape, torch.Generator().manual_seed(1))
    g1, g2 = subsample(image, pairs)
    for result, member in ((g1, 0), (g2, 1)):
        assert result.shape == (2, 3, 3, 5)
        for b in range(2):
            for c in range(3):
                for row in range(3):
                    for column in range(5):
                        pixel = ORDERED_PAIRS[int(pairs[b, row, column])][member]
                        expected = image[b, c, 2 * row + pixel // 2, 2 * column + pixel % 2]
                        assert result[b, c, row, column] == expected


def test_all_pairs_are_equally_likely_at_every_place() -> None:
    pairs = draw_pairs((64, 3, 64, 64), torch.Generator().manual_seed(0))
    counts = torch.bincount(pairs.flatten(), minlength=8).double()
    expected = counts.sum() / 8
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 24.3  # 0.999 quantile, 7 degrees of freedom
    neighbours = torch.bincount((pairs[:, :, :-1] * 8 + pairs[:, :, 1:]).flatten(), minlength=64).double()
    expected = neighbours.sum() / 64
    chi_square = float(((neighbours - expected) ** 2 / expected).sum())
    assert chi_square < 103.4  # 0.999 quantile, 63 degrees of freedom: neighbouring cells are independent


def test_noise_of_the_two_images_is_independent_with_unchanged_variance() -> None:
    noise = torch.randn(8, 3, 128, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    g1, g2 = subsample(noise, draw_pairs(noise.shape, torch.Generator().manual_seed(3)))
    correlation = float((g1 * g2).mean())
    assert abs(correlation) < 4 / g1.numel() ** 0.5
    assert float(g1.var()) == pytest.approx(1, abs=0.02)
    assert float(g2.var()) == pytest.approx(1, abs=0.02)


def test_pairs_depend_on_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first = draw_pairs((1, 3, 8, 8), torch.Generator().manual_seed(5))
    again = draw_pairs((1, 3, 8, 8), torch.Generator().manual_seed(5))
    other = draw_pairs((1, 3, 8, 8), torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_channels_last_memory_gives_the_same_values() -> None:
    image = torch.rand(2, 3, 8, 12)
    pairs = draw_pairs(image.shape, torch.Generator().manual_seed(1))
    for plain, other in zip(
        subsample(image, pairs), subsample(image.contiguous(memory_format=torch.channels_last), pairs), strict=True
    ):
        assert torch.equal(plain, other)


def test_odd_sides_and_foreign_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="even H and W"):
        draw_pairs((1, 3, 7, 8), torch.Generator())
    pairs = draw_pairs((1, 3, 8, 8), torch.Generator())
    with pytest.raises(ValueError, match="do not fit"):
        subsample(torch.zeros(1, 3, 8, 10), pairs)
