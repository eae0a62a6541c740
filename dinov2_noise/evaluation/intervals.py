"""95 % intervals over images for figures that are no proportion of them, by resampling.

The bootstrap is stratified: every resample holds as many images of each class as there are (Efron and Tibshirani, *An
Introduction to the Bootstrap*, 1993). What a figure needs of the images is their confusion matrix or their ranks, so
that counts are drawn instead of images: the same distribution, at a cost that hardly depends on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.evaluation.records import wilson

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

N_RESAMPLES = 1000
_BLOCK = 2**24  # numbers that are in memory at once


def bootstrap_confusion(
    confusion: Counts, figure: Callable[[Counts], Floats], *, seed: int, n_resamples: int = N_RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of a figure of the confusion matrix.

    Row c of a resample is multinomial with n_c draws and the observed shares: what drawing n_c images of class c with
    replacement gives.

    Args:
        confusion: (C, C) images of class row told to be of class column.
        figure: from (R, C, C) to (R,).
        seed: of the draws.

    Returns:
        The interval. Where no resample differs (all images are told right) it is Wilson's for the smallest class.
    """
    generator = np.random.default_rng(seed)
    values = [figure(block) for block in _resampled(confusion, generator, n_resamples)]
    per_class = confusion.sum(axis=1)
    return _percentile(np.concatenate(values), int(per_class[per_class > 0].min()))


def bootstrap_auroc(
    scores: Floats, positive: NDArray[np.bool_], *, seed: int, n_resamples: int = N_RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of the area under the ROC curve, resampling positives and negatives apart.

    Args:
        scores: (N,) higher for positives. positive: (N,).
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    _, rank = np.unique(scores, return_inverse=True)
    n_ranks = int(rank.max()) + 1
    of_positives = np.bincount(rank[positive], minlength=n_ranks)
    of_negatives = np.bincount(rank[~positive], minlength=n_ranks)
    n_positive, n_negative = int(of_positives.sum()), int(of_negatives.sum())
    values = []
    for n in _blocks(n_resamples, n_ranks):
        drawn = generator.multinomial(n_positive, of_positives / n_positive, size=n)
        against = generator.multinomial(n_negative, of_negatives / n_negative, size=n)
        values.append(auroc_of_ranks(drawn, against))
    return _percentile(np.concatenate(values), min(n_positive, n_negative))


def auroc_of_ranks(positives: Counts, negatives: Counts) -> Floats:
    """Area under the ROC curve (…,) from the number of positives and negatives at each rank (…, K), lowest first.

    The share of pairs in which the positive ranks above the negative; equal ranks count half (Mann and Whitney 1947).
    """
    below = np.cumsum(negatives, axis=-1) - negatives
    won = np.sum(positives * (below + negatives / 2), axis=-1)
    area: Floats = won / (positives.sum(axis=-1) * negatives.sum(axis=-1))
    return area


def _resampled(confusion: Counts, generator: np.random.Generator, n_resamples: int) -> Iterator[Counts]:
    for n in _blocks(n_resamples, confusion.size):
        block = np.zeros((n, *confusion.shape), np.int64)
        for row, counts in enumerate(confusion):
            told = np.flatnonzero(counts)  # the others stay 0
            if len(told):
                total = int(counts.sum())
                block[:, row, told] = generator.multinomial(total, counts[told] / total, size=n)
        yield block


def _blocks(n: int, width: int) -> Iterator[int]:
    most = max(1, _BLOCK // width)
    while n > 0:
        yield min(n, most)
        n -= most


def _percentile(values: Floats, n_least: int) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    if low == high:
        return wilson(float(low), n_least)
    return float(low), float(high)
