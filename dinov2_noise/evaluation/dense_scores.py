"""Scores of dense predictions: intersection over union per class, its mean, and the share of pixels told right.

``IoU_c = TP_c / (TP_c + FP_c + FN_c)`` over all pixels of the set, as in M. Everingham et al., The PASCAL Visual Object
Classes Challenge: A Retrospective, IJCV 2015, section 3.4.2; the mean is over the classes that the masks of the set
have at least one pixel of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """Pixels per class, of one image (C,) or of several (N, C).

    Attributes:
        right: of this class and told so. truth: of this class. told: said to be of it.
    """

    right: Counts
    truth: Counts
    told: Counts

    @classmethod
    def of(cls, predicted: NDArray[np.integer], mask: NDArray[np.integer], n_classes: int, ignore: int | None) -> Tally:
        """Of one image: classes (H, W) each; pixels whose mask is ``ignore`` do not count, whatever is said of them."""
        counted = np.ones(mask.shape, bool) if ignore is None else mask != ignore
        truth, told = mask[counted].astype(np.int64), predicted[counted].astype(np.int64)
        hits = truth[truth == told]
        return cls(*(np.bincount(values, minlength=n_classes) for values in (hits, truth, told)))

    @classmethod
    def stacked(cls, tallies: Sequence[Tally]) -> Tally:
        return cls(*(np.stack([getattr(one, name) for one in tallies]) for name in ("right", "truth", "told")))


@dataclass(frozen=True)
class DenseScore:
    """What a tally of N images comes to.

    Attributes:
        miou: mean IoU over the classes that occur. iou: per class, None for those that do not occur.
        pixel_accuracy: share of the labelled pixels.
        miou95, pixel_accuracy95: 95 % intervals over images: percentiles of sets drawn with replacement.
    """

    miou: float
    iou: Sequence[float | None]
    pixel_accuracy: float
    miou95: tuple[float, float]
    pixel_accuracy95: tuple[float, float]
    n_images: int


def score(tally: Tally, seed: int = 0) -> DenseScore:
    """Score N images (N, C), of which one at least has a labelled pixel."""
    n_images = len(tally.truth)
    total = [part.sum(axis=0, keepdims=True) for part in (tally.right, tally.truth, tally.told)]
    iou, mean, accuracy = _scores(*total)
    rng = np.random.default_rng(seed)
    # how often each image is drawn, (R, N); one product then makes the sums of all drawn sets
    times = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=RESAMPLES).astype(np.float64)
    _, means, accuracies = _scores(*(times @ part for part in (tally.right, tally.truth, tally.told)))
    return DenseScore(
        miou=float(mean[0]),
        iou=[None if np.isnan(value) else float(value) for value in iou[0]],
        pixel_accuracy=float(accuracy[0]),
        miou95=_middle(means),
        pixel_accuracy95=_middle(accuracies),
        n_images=n_images,
    )


def _scores(right: NDArray[Any], truth: NDArray[Any], told: NDArray[Any]) -> tuple[Scores, ...]:
    """IoU (R, C), NaN where a class does not occur; its mean (R,); pixel accuracy (R,); NaN without any pixel."""
    hits, there = right.astype(np.float64), truth.astype(np.float64)
    union = there + told - hits
    iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=there > 0)
    present = (there > 0).sum(axis=1)
    nothing = np.full(len(hits), np.nan)
    mean = np.divide(np.nansum(iou, axis=1), present, out=nothing.copy(), where=present > 0)
    pixels = there.sum(axis=1)
    return iou, mean, np.divide(hits.sum(axis=1), pixels, out=nothing, where=pixels > 0)


def _middle(values: Scores) -> tuple[float, float]:
    # a set drawn may consist of images without a labelled pixel
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return max(0.0, float(low)), min(1.0, float(high))


def always(most_common: int, truth: Counts) -> tuple[float, float]:
    """mIoU and pixel accuracy of saying ``most_common`` everywhere, on masks with ``truth`` (C,) pixels per class."""
    share = float(truth[most_common] / truth.sum())
    return share / int((truth > 0).sum()), share
