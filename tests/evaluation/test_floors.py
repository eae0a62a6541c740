"""Floors on data small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dinov2_noise.evaluation.floors import chance, mean_colour_knn, psnr_db


def plain(red: int, green: int = 0, blue: int = 0, side: int = 2) -> np.ndarray:
    return np.full((side, side, 3), (red, green, blue), dtype=np.uint8)


def test_chance_is_the_share_of_the_most_common_train_class() -> None:
    assert chance([0, 0, 0, 1]) == 0.75
    assert chance([0, 0, 0, 1], val_labels=[0, 1, 1, 1]) == 0.25
    assert chance(np.arange(10).repeat(7)) == pytest.approx(0.1)


def test_chance_is_the_mean_over_classes_equally_common_in_train() -> None:
    assert chance([0, 0, 1, 1, 2], val_labels=[0, 0, 0, 1]) == pytest.approx((0.75 + 0.25) / 2)


def test_mean_colour_counts_votes_of_the_k_nearest() -> None:
    train = [plain(0), plain(10), plain(20), plain(200), plain(210)]
    labels = [0, 1, 1, 2, 2]
    # Around 2: one neighbour says 0; three say 0, 1, 1.
    assert mean_colour_knn(train, labels, [plain(2)], [0], k=1) == 1.0
    assert mean_colour_knn(train, labels, [plain(2)], [0], k=3) == 0.0
    assert mean_colour_knn(train, labels, [plain(2), plain(2), plain(205), plain(205)], [1, 0, 2, 0], k=2) == 0.5


def test_mean_colour_tie_goes_to_the_nearest_class() -> None:
    train = [plain(30), plain(20), plain(0), plain(10)]
    assert mean_colour_knn(train, [1, 1, 0, 0], [plain(16)], [1], k=4) == 1.0  # distances 14, 4, 16, 6
    assert mean_colour_knn(train, [1, 1, 0, 0], [plain(14)], [0], k=10) == 1.0  # k beyond the train set: all four vote


def test_mean_colour_sees_all_channels_and_nothing_but_the_mean() -> None:
    train = [plain(100, 0, 0), plain(0, 100, 0), plain(0, 0, 100)]
    halves = np.concatenate([plain(0, 0, 200, side=4)[:2], plain(0, 0, 0, side=4)[:2]])
    assert mean_colour_knn(train, [0, 1, 2], [halves], [2], k=1) == 1.0


def test_mean_colour_refuses_grayscale_and_missing_labels() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        mean_colour_knn([np.zeros((2, 2))], [0], [plain(0)], [0])
    with pytest.raises(ValueError, match="as many labels"):
        mean_colour_knn([plain(0)], [0, 1], [plain(0)], [0])


def test_psnr_of_a_constant_difference() -> None:
    # 20 log10(255 / 51) = 20 log10 5
    assert psnr_db(plain(100, 100, 100), plain(151, 151, 151)) == pytest.approx(13.979400, abs=1e-6)
    # One of three channels differs, downwards, by 255: MSE = 255² / 3. Unsigned arithmetic would give another number.
    assert psnr_db(plain(255, 0, 0), plain(0, 0, 0)) == pytest.approx(10 * math.log10(3))


def test_psnr_of_equal_images_is_infinite_and_of_unequal_shapes_an_error() -> None:
    assert psnr_db(plain(7), plain(7)) == math.inf
    with pytest.raises(ValueError, match="one shape"):
        psnr_db(plain(7), plain(7, side=4))
    with pytest.raises(ValueError, match="float64"):
        psnr_db(plain(7), plain(7) / 255)
