"""How well a ranking finds what belongs to a query: mAP and mP@k of Revisited Oxford and Paris.

Source: F. Radenović, A. Iscen, G. Tolias, Y. Avrithis, O. Chum, Revisiting Oxford and Paris: Large-Scale Image
Retrieval Benchmarking, CVPR 2018 (arXiv 1803.11285), section 2. Each image of the database is easy, hard, unclear
(junk) or negative for a query. Written from the definitions; equal scores are ranked in the order of the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROTOCOLS = ("easy", "medium", "hard")
KS = (1, 5, 10)
RESAMPLES = 2000

Indices = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Relevance:
    """What is in the database for one query: indices of its images, each in one of the three at most."""

    easy: Indices
    hard: Indices
    junk: Indices

    def split(self, protocol: str) -> tuple[Indices, Indices]:
        """(positives, junk) of a protocol: what counts as found, and what is taken out of the ranking.

        ==========  ============  ============
        protocol    positives     junk
        ==========  ============  ============
        ``easy``    easy          junk, hard
        ``medium``  easy, hard    junk
        ``hard``    hard          junk, easy
        ==========  ============  ============
        """
        return {
            "easy": (self.easy, np.concatenate([self.junk, self.hard])),
            "medium": (np.concatenate([self.easy, self.hard]), self.junk),
            "hard": (self.hard, np.concatenate([self.junk, self.easy])),
        }[protocol]


def ranks_of(order: Indices, positives: Indices, junk: Indices) -> Indices:
    """Ranks of the positives, from 0 and rising, in a ranking from which the junk is taken out.

    Args:
        order: (N,) all images of the database, best first.
    """
    kept = order[~np.isin(order, junk)]
    return np.flatnonzero(np.isin(kept, positives))


def average_precision(ranks: Indices) -> float:
    """Area under the precision-recall curve, by the trapezoidal rule.

    ``AP = 1/n Σ_j (j / r_j + (j + 1) / (r_j + 1)) / 2`` over the n positives, where r_j is the rank of the j-th one,
    both from 0: the mean of the precision before it (1 at the very top) and at it.

    Args:
        ranks: (n,) rising, n >= 1; see `ranks_of`.
    """
    found = np.arange(len(ranks))
    before = np.divide(found, ranks, out=np.ones(len(ranks)), where=ranks > 0)
    return float(np.mean((before + (found + 1) / (ranks + 1)) / 2))


def precision_at(ranks: Indices, k: int) -> float:
    """Share of positives among the first k' of the ranking, k' = min(k, place of the last positive, from 1)."""
    depth = min(k, int(ranks[-1]) + 1)
    return int(np.count_nonzero(ranks < depth)) / depth


@dataclass(frozen=True)
class ProtocolScore:
    """One protocol; the means are over the queries that have positives in it.

    Attributes:
        average_precision: of every query, None without positives.
        precision: mP@k by k. map: mean of the average precisions, mAP.
        interval95: of the mAP, over queries: percentiles of the means of queries drawn with replacement.
    """

    average_precision: Sequence[float | None]
    precision: Mapping[int, float]
    map: float
    interval95: tuple[float, float]

    @property
    def n_queries(self) -> int:
        """Those that have positives."""
        return sum(value is not None for value in self.average_precision)


def score(orders: Sequence[Indices], relevance: Sequence[Relevance], protocol: str) -> ProtocolScore | None:
    """Score a ranking of the database per query; None where no query has a positive."""
    ranks = ranks_per_query(orders, relevance, protocol)
    precisions = [None if one is None else average_precision(one) for one in ranks]
    counted = np.array([value for value in precisions if value is not None])
    if not len(counted):
        return None
    precision = {k: float(np.mean([precision_at(one, k) for one in ranks if one is not None])) for k in KS}
    return ProtocolScore(precisions, precision, float(counted.mean()), mean_interval(counted))


def ranks_per_query(orders: Sequence[Indices], relevance: Sequence[Relevance], protocol: str) -> list[Indices | None]:
    """`ranks_of` of every query in a protocol; None where it has no positive."""
    split = [one.split(protocol) for one in relevance]
    return [
        ranks_of(order, positives, junk) if len(positives) else None
        for order, (positives, junk) in zip(orders, split, strict=True)
    ]


def score_all(orders: Sequence[Indices], relevance: Sequence[Relevance]) -> dict[str, ProtocolScore]:
    """The protocols in which there is a query with positives."""
    found = {protocol: score(orders, relevance, protocol) for protocol in PROTOCOLS}
    return {protocol: one for protocol, one in found.items() if one is not None}


def rank(queries: NDArray[np.float32], database: NDArray[np.float32]) -> list[Indices]:
    """All images of the database per query, by falling inner product; equal ones in the order of the database.

    Args:
        queries: (Q, D). database: (N, D).
    """
    return [np.argsort(-(database @ query), kind="stable") for query in queries]


def mean_interval(values: Scores, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of ``values`` (n,), by the percentiles of 2,000 bootstrap means; the same each time."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    # the mean of equal numbers may differ from them in the last bit
    return max(0.0, float(low)), min(1.0, float(high))
