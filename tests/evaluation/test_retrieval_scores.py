"""mAP and mP@k: by hand, against a slow walk along the precision-recall curve, and in the limits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dinov2_noise.evaluation.retrieval_scores import (
    KS,
    PROTOCOLS,
    Relevance,
    average_precision,
    mean_interval,
    precision_at,
    rank,
    ranks_of,
    score,
    score_all,
)


def _relevance(easy: list[int], hard: list[int], junk: list[int]) -> Relevance:
    return Relevance(*(np.array(part, dtype=np.int64) for part in (easy, hard, junk)))


def _slow(order: list[int], positives: list[int], junk: list[int]) -> tuple[Fraction, list[Fraction]]:
    """Area below the precision-recall curve, point by point, and precision at k; in exact fractions."""
    area, found, place = Fraction(0), 0, 0
    recall, precision = Fraction(0), Fraction(1)
    hits: list[bool] = []
    for image in order:
        if image in junk:
            continue
        place += 1
        found += image in positives
        hits.append(image in positives)
        new_recall, new_precision = Fraction(found, len(positives)), Fraction(found, place)
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    last = max(number for number, hit in enumerate(hits, start=1) if hit)
    at = [Fraction(sum(hits[: min(k, last)]), min(k, last)) for k in KS]
    return area, at


def test_one_ranking_by_hand() -> None:
    order = np.array([2, 0, 5, 1, 3, 4])
    relevance = _relevance(easy=[0], hard=[3], junk=[2])
    # medium: 2 is taken out, 0 5 1 3 4 are left, positives at 0 and 3: ((1 + 1/1) / 2 + (1/3 + 2/4) / 2) / 2
    assert ranks_of(order, np.array([0, 3]), np.array([2])).tolist() == [0, 3]
    found = score_all([order], [relevance])
    assert found["medium"].map == pytest.approx((1 + 5 / 12) / 2, abs=1e-15)
    # the last positive is the 4th: mP@5 and mP@10 divide by 4
    assert found["medium"].precision == {1: 1.0, 5: 0.5, 10: 0.5}
    # easy: 3 is junk, too: the only positive is on top
    assert found["easy"].map == 1.0
    assert found["easy"].precision == {1: 1.0, 5: 1.0, 10: 1.0}
    # hard: 0 is junk, too; 5 1 3 4, positive at 2: (0/2 + 1/3) / 2
    assert found["hard"].map == pytest.approx(1 / 6, abs=1e-15)
    assert found["hard"].precision == pytest.approx({1: 0.0, 5: 1 / 3, 10: 1 / 3})


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([0], 1.0),
        ([0, 1, 2], 1.0),
        ([1], (0 / 1 + 1 / 2) / 2),
        ([1, 2], ((0 / 1 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        ([0, 1, 4], (1 + 1 + (2 / 4 + 3 / 5) / 2) / 3),
        ([999], (0 + 1 / 1000) / 2),
    ],
    ids=str,
)
def test_average_precision_by_hand(ranks: list[int], expected: float) -> None:
    assert average_precision(np.array(ranks)) == pytest.approx(expected, abs=1e-15)


def test_precision_divides_by_the_last_positive_where_that_comes_before_k() -> None:
    assert precision_at(np.array([0, 2]), 10) == 2 / 3
    assert precision_at(np.array([0, 2]), 2) == 1 / 2
    assert precision_at(np.array([7]), 5) == 0


def test_scores_are_those_of_the_slow_walk() -> None:
    rng = np.random.default_rng(0)
    orders, relevance = [], []
    for _ in range(40):
        labels = rng.permutation(60)
        cuts = np.sort(rng.integers(0, 25, size=3))
        relevance.append(Relevance(labels[: cuts[0]], labels[cuts[0] : cuts[1]], labels[cuts[1] : cuts[2]]))
        orders.append(rng.permutation(60))
    found = score_all(orders, relevance)
    for protocol in PROTOCOLS:
        slow = []
        for order, one, value in zip(orders, relevance, found[protocol].average_precision, strict=True):
            positives, junk = (part.tolist() for part in one.split(protocol))
            if not positives:
                assert value is None
                continue
            slow.append(_slow(order.tolist(), positives, junk))
            assert value == pytest.approx(float(slow[-1][0]), abs=1e-13)
        assert found[protocol].n_queries == len(slow) > 25
        assert found[protocol].map == pytest.approx(float(sum(area for area, _ in slow) / len(slow)), abs=1e-13)
        for place, k in enumerate(KS):
            mean = sum(at[place] for _, at in slow) / len(slow)
            assert found[protocol].precision[k] == pytest.approx(float(mean), abs=1e-13)


def test_queries_without_positives_are_left_out_of_the_mean() -> None:
    order = np.array([0, 1, 2])
    found = score([order, order], [_relevance([1], [], []), _relevance([], [0], [])], "easy")
    assert found is not None
    assert list(found.average_precision) == [0.25, None]
    assert (found.map, found.n_queries, found.precision[1]) == (0.25, 1, 0.0)
    assert score([order], [_relevance([], [0], [])], "easy") is None
    assert list(score_all([order], [_relevance([], [0], [])])) == ["medium", "hard"]


def test_ranking_by_similarity_keeps_the_order_of_equal_ones() -> None:
    database = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
    assert [order.tolist() for order in rank(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), database)] == [
        [1, 3, 2, 0],
        [0, 2, 1, 3],
    ]


def test_interval_has_the_width_of_a_mean() -> None:
    values = np.random.default_rng(1).beta(2, 3, size=200)
    low, high = mean_interval(values)
    expected = 1.96 * values.std() / np.sqrt(200)
    assert values.mean() - low == pytest.approx(expected, rel=0.15)
    assert high - values.mean() == pytest.approx(expected, rel=0.15)
    assert mean_interval(values) == (low, high)
    assert mean_interval(np.ones(5)) == (1.0, 1.0)
