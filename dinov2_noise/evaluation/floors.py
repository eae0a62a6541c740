"""Numbers that need no training: what a method must beat before its accuracy means anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def chance(labels: Sequence[int], val_labels: Sequence[int] | None = None) -> float:
    """Accuracy of always answering the most common class of ``labels`` (the train labels).

    Counted on ``val_labels``, or on ``labels`` themselves; the mean over the classes where several are most common.
    """
    if len(labels) == 0 or (val_labels is not None and len(val_labels) == 0):
        raise ValueError("chance level of no labels")
    counts = Counter(labels)
    most = [label for label, count in counts.items() if count == max(counts.values())]
    answered = Counter(labels if val_labels is None else val_labels)
    return sum(answered[label] for label in most) / len(most) / answered.total()


def mean_colour_knn(
    train_images: Sequence[npt.ArrayLike],
    train_labels: Sequence[int],
    val_images: Sequence[npt.ArrayLike],
    val_labels: Sequence[int],
    k: int = 10,
) -> float:
    """Accuracy of a k-NN on the mean colour of each image alone.

    Images are (H, W, 3), of any sizes. Euclidean distance, majority vote; among tied classes the one with the nearest
    neighbour wins.
    """
    if len(train_images) != len(train_labels) or len(val_images) != len(val_labels):
        raise ValueError("as many labels as images are needed")
    if len(train_labels) == 0 or len(val_labels) == 0 or k < 1:
        raise ValueError("train images, validation images and k >= 1 are needed")
    train, val = (np.stack([_mean_colour(image) for image in images]) for images in (train_images, val_images))
    told = colour_knn(train, np.asarray(train_labels), val, k)
    return float(np.mean(told == np.asarray(val_labels)))


def colour_knn(
    train_colours: npt.NDArray[np.floating],
    train_labels: npt.NDArray[Any],
    val_colours: npt.NDArray[np.floating],
    k: int,
) -> npt.NDArray[Any]:
    """Classes (M,) that the k nearest of the training colours (N, 3) tell for each of (M, 3), as `mean_colour_knn`."""
    told = []
    for colour in val_colours:
        distances = np.linalg.norm(train_colours - colour, axis=1)
        nearest = train_labels[np.argsort(distances, kind="stable")[:k]].tolist()
        # most_common keeps the order of first appearance among equal counts: the nearest class wins.
        told.append(Counter(nearest).most_common(1)[0][0])
    return np.array(told)


def psnr_db(reference_uint8: npt.NDArray[np.uint8], image_uint8: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two 8-bit images of one shape, ``10 log10(255² / MSE)`` dB; infinite if equal."""
    if reference_uint8.dtype != np.uint8 or image_uint8.dtype != np.uint8:
        raise ValueError(f"8-bit images are needed, not {reference_uint8.dtype} and {image_uint8.dtype}")
    if reference_uint8.shape != image_uint8.shape:
        raise ValueError(f"images of one shape are needed, not {reference_uint8.shape} and {image_uint8.shape}")
    difference = reference_uint8.astype(np.float64) - image_uint8.astype(np.float64)
    mse = float(np.mean(difference**2))
    return math.inf if mse == 0 else 10 * math.log10(255.0**2 / mse)


def _mean_colour(image: npt.ArrayLike) -> npt.NDArray[np.float64]:
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"an RGB image of shape (H, W, 3) is needed, not {pixels.shape}")
    colour: npt.NDArray[np.float64] = pixels.mean(axis=(0, 1))
    return colour
