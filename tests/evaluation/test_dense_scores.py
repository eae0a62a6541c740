"""mIoU and pixel accuracy: by hand, against a slow loop over pixels, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dinov2_noise.evaluation.dense_scores import Tally, always, score


def _tally(confusion: list[list[int]]) -> Tally:
    """Of one image: pixels of class (row) told as class (column)."""
    matrix = np.array(confusion)
    return Tally(np.diag(matrix)[None], matrix.sum(axis=1)[None], matrix.sum(axis=0)[None])


def test_a_confusion_matrix_by_hand() -> None:
    found = score(_tally([[6, 2, 0], [1, 3, 0], [0, 4, 0]]))
    # TP / (TP + FP + FN): 6 / (8 + 7 - 6), 3 / (4 + 9 - 3), 0 / 4
    assert found.iou == pytest.approx([6 / 9, 3 / 10, 0.0], abs=1e-15)
    assert found.miou == pytest.approx((6 / 9 + 3 / 10) / 3, abs=1e-15)
    assert found.pixel_accuracy == pytest.approx(9 / 16, abs=1e-15)
    assert found.n_images == 1
    # one image is always drawn
    assert found.miou95 == pytest.approx((found.miou, found.miou), abs=1e-12)


def test_the_mean_is_over_the_classes_that_occur() -> None:
    # class 2 is told, and occurs nowhere: its false positives cost class 0, whose misses they are
    found = score(_tally([[6, 0, 2], [0, 4, 0], [0, 0, 0]]))
    assert found.iou == [6 / 8, 1.0, None]
    assert found.miou == pytest.approx((6 / 8 + 1) / 2, abs=1e-15)


def test_perfect_and_wrong() -> None:
    assert score(_tally([[5, 0], [0, 7]])).miou == 1.0
    assert score(_tally([[0, 5], [7, 0]])).miou == 0.0


def _slow(
    told: list[NDArray[np.integer]], masks: list[NDArray[np.integer]], n_classes: int, ignore: int
) -> tuple[float, float]:
    hits, union, there, right, pixels = [0] * n_classes, [0] * n_classes, [0] * n_classes, 0, 0
    for image, mask in zip(told, masks, strict=True):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                truth, said = int(mask[row, column]), int(image[row, column])
                if truth == ignore:
                    continue
                pixels += 1
                there[truth] += 1
                if truth == said:
                    right += 1
                    hits[truth] += 1
                    union[truth] += 1
                else:
                    union[truth] += 1
                    union[said] += 1
    ious = [hits[c] / union[c] for c in range(n_classes) if there[c]]
    return sum(ious) / len(ious), right / pixels


def test_scores_are_those_of_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    sizes = [(7, 9), (5, 5), (8, 3), (6, 6)]
    masks = [rng.choice([0, 1, 2, 4, 255], size=size).astype(np.uint8) for size in sizes]  # class 3 never occurs
    told = [np.where(rng.random(mask.shape) < 0.5, mask % 255, rng.integers(0, 5, mask.shape)) for mask in masks]
    tallies = [Tally.of(one, mask, 5, 255) for one, mask in zip(told, masks, strict=True)]
    found = score(Tally.stacked(tallies))
    miou, accuracy = _slow(told, masks, 5, 255)
    assert found.miou == pytest.approx(miou, abs=1e-14)
    assert found.pixel_accuracy == pytest.approx(accuracy, abs=1e-14)
    assert found.iou[3] is None
    assert found.miou95[0] < found.miou < found.miou95[1]


def test_without_an_ignored_value_all_pixels_count() -> None:
    mask = np.array([[0, 255], [255, 1]], np.uint8)
    assert Tally.of(mask, mask, 256, None).truth.sum() == 4
    assert Tally.of(mask, mask, 256, 255).truth.sum() == 2


def test_interval_of_pixel_accuracy_has_the_width_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    right = rng.binomial(100, rng.uniform(0.3, 0.9, size=150))
    tally = Tally(
        np.stack([right, 0 * right], 1), np.stack([100 + 0 * right, 0 * right], 1), np.stack([right, 100 - right], 1)
    )
    found = score(tally)
    expected = 1.96 * right.std() / 100 / np.sqrt(150)
    assert found.pixel_accuracy - found.pixel_accuracy95[0] == pytest.approx(expected, rel=0.15)
    assert score(tally) == found  # the same each time


def test_the_floor_of_one_class() -> None:
    truth = np.array([30, 50, 0, 20])
    confusion = np.zeros((4, 4), int)
    confusion[:, 1] = truth
    found = score(_tally(confusion.tolist()))
    assert always(1, truth) == pytest.approx((found.miou, found.pixel_accuracy), abs=1e-15)
    assert always(1, truth) == pytest.approx((0.5 / 3, 0.5))
