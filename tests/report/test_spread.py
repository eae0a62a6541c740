"""Means and intervals over seeds, which difference counts, and records that contradict each other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from report_files import record
from scipy import stats

from dinov2_noise.errors import CheckpointError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.report.spread import Group, Place, best, dataset_label, difference, groups_of

PLACE = Place("knn_top1", "noisy")


def _group(arm: str, *values: float, n_images: int = 400) -> Group:
    return Group(arm, PLACE, [record(arm, value, seed, n_images=n_images) for seed, value in enumerate(values)])


def _groups(*records: Record) -> dict[Place, list[Group]]:
    return groups_of((Path(f"{number}.json"), one) for number, one in enumerate(records))


def test_mean_and_spread_over_seeds() -> None:
    group = _group("nct", 0.5, 0.54, 0.52)
    assert group.mean == pytest.approx(0.52)
    assert group.deviation == pytest.approx(np.std([0.5, 0.54, 0.52], ddof=1))
    assert _group("nct", 0.5).deviation is None


def test_more_seeds_do_not_narrow_the_interval_over_images() -> None:
    one, three = _group("nct", 0.5), _group("nct", 0.5, 0.5, 0.5)
    assert three.interval == pytest.approx(one.interval)
    assert one.interval == record("nct", 0.5).interval()
    given = Group("nct", PLACE, [record("nct", 0.5, interval95=(0.3, 0.6))])
    assert given.interval == (0.3, 0.6)
    assert given.image_error == pytest.approx(0.3 / (2 * 1.959964), rel=1e-6)


def test_a_difference_of_many_images_and_few_seeds_is_welchs() -> None:
    """With images without number only the seeds are left, and the interval is that of scipy's Welch test."""
    values = [0.50, 0.53, 0.56], [0.48, 0.49]
    one, other = (_group("x", *own, n_images=10**12) for own in values)
    found = difference(one, other)
    reference = stats.ttest_ind(*values, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-5)
    assert found.over_seeds


def test_a_difference_of_single_trainings_is_of_images_alone() -> None:
    one, other = _group("a", 0.6, n_images=10_000), _group("b", 0.5, n_images=10_000)
    found = difference(one, other)
    error = math.sqrt(0.6 * 0.4 / 10_000 + 0.5 * 0.5 / 10_000)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * error, rel=1e-3)
    assert not found.over_seeds
    twice = difference(one, other, comparisons=2)
    assert (twice.high - twice.low) / (found.high - found.low) == pytest.approx(2.241403 / 1.959964, rel=1e-6)


def test_the_uncertainty_holds_what_it_says() -> None:
    """95 % intervals of the difference of two equal arms hold zero in at least 95 % of simulated studies."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        shown = [np.clip(0.5 + rng.normal(0, 0.02, 3), 0, 1) for _ in range(2)]
        groups = [_group("x", *(rng.binomial(500, share) / 500 for share in own), n_images=500) for own in shown]
        held += not difference(*groups).exceeds_uncertainty
    assert held / 400 >= 0.95


def test_the_best_is_marked_only_beyond_the_uncertainty() -> None:
    clear, close = _group("a", 0.80, 0.81, 0.79), _group("b", 0.60, 0.61, 0.60)
    winner = best([close, clear, _group("c", 0.5, 0.51, 0.5)])
    assert winner == (clear, True)
    assert best([close, _group("c", 0.59, 0.60, 0.62)]) is None
    assert best([_group("a", 0.9), _group("b", 0.5)]) == (_group("a", 0.9), False)
    assert best([clear]) is None
    assert best([clear, _group("chance", 0.1)]) is None  # a floor is no arm
    noisy = _group("a", 0.95, 0.60, 0.85)  # the spread over seeds alone forbids it
    assert best([noisy, close]) is None


def test_records_are_grouped_by_arm_metric_and_images() -> None:
    groups = _groups(
        record("nct", 0.5, 1),
        record("nct", 0.6, 0),
        record("noisy", 0.4),
        record("nct", 0.7, metric="linear_top1"),
        record("nct", 0.8, dataset="ImageNet:split=VAL:root=/data/clean:noise=gauss50"),
    )
    assert [(place.metric, place.shown) for place in groups] == [
        ("knn_top1", "noisy (val)"),
        ("linear_top1", "noisy (val)"),
        ("knn_top1", "clean (val), gauss50"),
    ]
    first = groups[Place("knn_top1", "noisy (val)")]
    assert [(group.arm, [one.seed for one in group.records]) for group in first] == [("nct", [0, 1]), ("noisy", [0])]


def test_contradicting_records_name_both_files() -> None:
    with pytest.raises(CheckpointError, match=r"0\.json and 1\.json contradict .*nct, seed 3.*0\.5 and 0\.51"):
        _groups(record("nct", 0.5, 3), record("nct", 0.51, 3))


def test_the_same_measurement_twice_counts_once() -> None:
    (groups,) = _groups(record("nct", 0.5), record("nct", 0.5 + 1e-8), record("nct", 0.7, 1)).values()
    assert (groups[0].n_seeds, groups[0].mean) == (2, pytest.approx(0.6))


def test_probes_that_differ_are_places_of_their_own() -> None:
    other_root = "ImageNet:split=VAL:root=/other/noisy"
    groups = _groups(
        record("nct", 0.5, details={"k": 10}),
        record("nct", 0.6, details={"k": 20}),
        record("nct", 0.7, dataset=other_root, details={"k": 20}),
        record("nct", 0.8, dataset=other_root, details={"noise": "gauss50", "train_noise": "clean"}),
    )
    shown = [place.shown for place in groups]
    assert shown[0] == "noisy (val), k = 10"
    assert shown[1].startswith("noisy (val), k = 20 [ImageNet:split=VAL:root=/data/noisy")
    assert shown[2].startswith("noisy (val), k = 20 [ImageNet:split=VAL:root=/other/noisy")
    assert shown[3] == "noisy (val), gauss50, trained on clean"


def test_labels_of_data_sets() -> None:
    assert dataset_label("ImageFolder:root=/a/birds:noise=gauss50") == "birds, gauss50"
    assert dataset_label("ImageNet:split=VAL:root=/a/c:corruption=fog/3") == "c (val), fog/3"
    assert dataset_label("noisy validation cells") == "noisy validation cells"
