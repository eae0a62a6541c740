"""Figures of a classification: accuracy overall and per class, balanced accuracy, F1, area under the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.evaluation.intervals import Counts, Floats, auroc_of_ranks, bootstrap_auroc, bootstrap_confusion
from dinov2_noise.evaluation.records import wilson

LEAST_FOR_TOP_5 = 6


@dataclass(frozen=True)
class Figure:
    """A number in [0, 1], its 95 % interval over images, and whether that is Wilson's of a proportion."""

    value: float
    interval95: tuple[float, float]
    is_proportion: bool = True


@dataclass(frozen=True)
class Answers:
    """What a classifier says of labelled images.

    Attributes:
        targets: (N,) class indices. scores: (N, C), higher for the class it believes in; rows need no sum.
    """

    targets: NDArray[np.int64]
    scores: NDArray[np.float64]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the class of the highest score, the first of equal ones."""
        return np.asarray(self.scores.argmax(axis=1), np.int64)

    @cached_property
    def confusion(self) -> Counts:
        """(C, C): images of class row told to be of class column."""
        n_classes = self.scores.shape[1]
        pairs = self.targets * n_classes + self.predicted
        return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)

    def figures(self, seed: int) -> Mapping[str, Figure]:
        """By metric: top1; top5 from six classes on; balanced_accuracy; macro_f1; auroc of two classes.

        Args:
            seed: of the resampling that gives the last three their intervals.
        """
        found = {"top1": _proportion(self.in_top(1))}
        if self.scores.shape[1] >= LEAST_FOR_TOP_5:
            found["top5"] = _proportion(self.in_top(5))
        for name, figure in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
            value = float(figure(self.confusion[None])[0])
            found[name] = Figure(value, bootstrap_confusion(self.confusion, figure, seed=seed), is_proportion=False)
        if self.scores.shape[1] == 2 and len(np.unique(self.targets)) == 2:
            score, positive = self.scores[:, 1] - self.scores[:, 0], self.targets == 1
            interval = bootstrap_auroc(score, positive, seed=seed)
            found["auroc"] = Figure(auroc(score, positive), interval, is_proportion=False)
        return found

    def in_top(self, k: int) -> NDArray[np.bool_]:
        """(N,) whether fewer than ``k`` classes come before the right one; of equal scores the first comes first."""
        right = np.take_along_axis(self.scores, self.targets[:, None], axis=1)
        first = np.arange(self.scores.shape[1])[None] < self.targets[:, None]
        before = (self.scores > right) | ((self.scores == right) & first)
        return np.asarray(before.sum(axis=1) < k)


def balanced_accuracy(confusion: Counts) -> Floats:
    """Mean over the classes that occur of the share told right, (…,) of (…, C, C)."""
    counts = confusion.sum(axis=-1)
    occurs = counts > 0
    shares = np.diagonal(confusion, axis1=-2, axis2=-1) / np.maximum(counts, 1)
    mean: Floats = (shares * occurs).sum(axis=-1) / occurs.sum(axis=-1)
    return mean


def macro_f1(confusion: Counts) -> Floats:
    """Mean over the classes that occur of F1 = 2 TP / (2 TP + FP + FN), (…,) of (…, C, C)."""
    counts, told = confusion.sum(axis=-1), confusion.sum(axis=-2)
    occurs = counts > 0
    f1 = 2 * np.diagonal(confusion, axis1=-2, axis2=-1) / np.maximum(counts + told, 1)
    mean: Floats = (f1 * occurs).sum(axis=-1) / occurs.sum(axis=-1)
    return mean


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of (N,) scores, higher for positives; 0.5 is chance."""
    _, rank = np.unique(scores, return_inverse=True)
    n_ranks = int(rank.max()) + 1
    counts = [np.bincount(rank[chosen], minlength=n_ranks) for chosen in (positive, ~positive)]
    return float(auroc_of_ranks(counts[0], counts[1]))


def _proportion(right: NDArray[np.bool_]) -> Figure:
    value = float(right.mean())
    return Figure(value, wilson(value, len(right)))
