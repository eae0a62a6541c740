"""A linear classifier of patches: multinomial logistic regression on standardised features, fitted to its one optimum.

A patch is labelled by the shares of its pixels' classes, so that the loss is the mean cross-entropy of the labelled
pixels when each takes its patch's prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear, log_softmax

_MIN_DEVIATION = 1e-6
_ITERATIONS = 1000
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_HELD_OUT = 4  # each so many-th image


@dataclass(frozen=True)
class LinearClassifier:
    """Features (…, D) to scores (…, C).

    Attributes:
        mean, deviation: (D,) of the training features. weight: (C, D). bias: (C,). l2: the penalty it was fitted with.
        has_converged: whether the solver found the minimum within its number of steps.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor
    l2: float
    has_converged: bool = True

    def __call__(self, features: Tensor) -> Tensor:
        return linear((features - self.mean) / self.deviation, self.weight, self.bias)


def fit(features: Tensor, shares: Tensor, *, l2: float, start: LinearClassifier | None = None) -> LinearClassifier:
    """Minimise ``- Σ_i Σ_c s_ic log p_ic / Σ s + l2/2 ‖W‖²`` by L-BFGS; the same numbers give the same.

    The loss is convex, and with l2 > 0 its minimum in W is unique: neither order nor seed matters. It is summed in
    double precision, for in single it is flat within 1e-7 of the minimum, where weak penalties leave W much room.

    Args:
        features: (N, D) float32.
        shares: (N, C) shares of the pixels of a patch that have a class, in [0, 1]; what is missing to 1 has none.
        l2: weight of the penalty, on standardised features; not on the bias.
        start: where to begin; the optimum of another penalty is nearer than zero.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(_MIN_DEVIATION)
    scaled = (features - mean) / deviation
    exact = shares.double()
    weight = exact.new_zeros(shares.shape[1], features.shape[1]) if start is None else start.weight.double()
    bias = exact.new_zeros(shares.shape[1]) if start is None else start.bias.double()
    weight.requires_grad_()
    bias.requires_grad_()
    total = exact.sum()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        history_size=10,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = linear(scaled, weight.float(), bias.float()).double()
        value = -(exact * log_softmax(scores, dim=1)).sum() / total
        value = value + l2 / 2 * weight.square().sum()
        torch.autograd.backward(value)
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    has_converged = optimizer.state[weight]["n_iter"] < _ITERATIONS
    return LinearClassifier(mean, deviation, weight.detach().float(), bias.detach().float(), l2, has_converged)


def cross_entropy(classifier: LinearClassifier, features: Tensor, shares: Tensor) -> float:
    """Mean over the labelled pixels, as in `fit`, without the penalty."""
    likely = log_softmax(classifier(features).double(), dim=1)
    return float(-(shares * likely).sum() / shares.sum(dtype=torch.float64))


def choose_and_fit(features: Tensor, shares: Tensor, images: Tensor) -> LinearClassifier:
    """`fit` with the penalty of `PENALTIES` that predicts held-out training images best.

    Every fourth image is held out for the choice, by its cross-entropy; then all are fitted. Where that leaves no
    patch on either side (fewer than four images), the largest penalty is taken.

    Args:
        features, shares: as for `fit`. images: (N,) number of the image that each patch comes from.
    """
    held_out = images % _HELD_OUT == _HELD_OUT - 1
    if not held_out.any() or held_out.all():
        return fit(features, shares, l2=PENALTIES[0])
    tried: dict[float, float] = {}
    found: LinearClassifier | None = None
    for l2 in PENALTIES:
        found = fit(features[~held_out], shares[~held_out], l2=l2, start=found)
        tried[l2] = cross_entropy(found, features[held_out], shares[held_out])
    return fit(features, shares, l2=min(tried, key=lambda l2: tried[l2]))


def patch_shares(
    mask: NDArray[np.integer], grid: tuple[int, int], n_classes: int, ignore: int | None
) -> NDArray[np.float32]:
    """Shares of classes in the patches of an image: (h · w, C), rows summing to the share of labelled pixels.

    Args:
        mask: (H, W) at the image's own resolution. grid: (h, w) patches; pixel (y, x) lies in ⌊y h / H⌋, ⌊x w / W⌋.
    """
    height, width = mask.shape
    rows, columns = (np.arange(side) * n // side for side, n in zip((height, width), grid, strict=True))
    patch = rows[:, None] * grid[1] + columns
    counted = np.ones(mask.shape, bool) if ignore is None else mask != ignore
    n_patches = grid[0] * grid[1]
    places = patch[counted] * n_classes + mask[counted].astype(np.int64)
    counts = np.bincount(places, minlength=n_patches * n_classes).reshape(n_patches, n_classes)
    sizes = np.bincount(patch.ravel(), minlength=n_patches)
    shares: NDArray[np.float32] = (counts / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return shares
