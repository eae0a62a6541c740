"""How good frozen features are: two quick probes that need labels, two measures that need none.

All are deterministic, compute on the CPU and take a second for a thousand images. RankMe is in
`dinov2_noise.health.signs`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

TEMPERATURE = 0.07
RIDGES = tuple(10.0**power for power in range(-4, 3))
"""Candidates for the linear probe's penalty, as shares of the mean eigenvalue of the features' Gram matrix."""
_VANISHING = 1e-12  # share of the largest eigenvalue below which a direction is rounding
_BLOCK = 1024


def knn_top1(
    train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor, *, k: int, temperature: float = TEMPERATURE
) -> float:
    """Share of ``val`` whose class the k nearest of ``train`` vote for, as DINOv2's own k-NN evaluation counts.

    Each neighbour votes with weight exp(cosine / temperature); the class of most weight wins.

    Args:
        train: (N, D), any length; ``train_labels``: (N,) int64 from 0.
        val: (M, D); ``val_labels``: (M,).
        k: neighbours, 1 to N.

    Source: Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, arXiv
    1805.01978, section 3.4.
    """
    known, asked = normalize(train.double(), dim=1), normalize(val.double(), dim=1)
    right = 0
    for rows, labels in zip(asked.split(_BLOCK), val_labels.split(_BLOCK), strict=True):
        cosines, nearest = (rows @ known.T).topk(k, dim=1)
        votes = torch.zeros(len(rows), int(train_labels.max()) + 1, dtype=torch.float64)
        votes.scatter_add_(1, train_labels[nearest], ((cosines - 1) / temperature).exp())
        right += int((votes.argmax(dim=1) == labels).sum())
    return right / len(val_labels)


def linear_top1(train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor) -> float:
    """Share of ``val`` that a ridge regression of ``train`` onto its classes gets right.

    W minimises ||Y - X W - b||^2 + r ||W||^2 with the classes Y as one-hot rows and each feature scaled to unit
    variance over ``train``. Of `RIDGES` that r is taken whose leave-one-out squared error on ``train`` is smallest (the
    leave-one-out accuracy, of a few hundred images, jumps between penalties from one measurement to the next); ``val``
    is not looked at. Everything is in closed form, so the result depends on no seed, learning rate or number of steps.

    Args:
        train: (N, D), N at least 2; ``train_labels``: (N,) int64 from 0.
        val: (M, D); ``val_labels``: (M,).

    Source: Rifkin, Yeo, Poggio, "Regularized Least-Squares Classification", 2003, with the leave-one-out residual
    (y_i - f_i) / (1 - H_ii) of Allen, "The Relationship between Variable Selection and Data Augmentation and a Method
    for Prediction", 1974.
    """
    targets = one_hot(train_labels).double()
    ridge = Ridge(train, targets)
    errors = [(float((ridge.left_out(r) - targets).square().mean()), -r) for r in ridge.penalties]
    predicted = ridge.predict(val, -min(errors)[1]).argmax(dim=1)
    return float((predicted == val_labels).double().mean())


class Ridge:
    """Ridge regressions of the same data with any penalty, from one eigendecomposition.

    Args:
        features: (N, D). targets: (N, C), float64.
    """

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        x = features.double()
        self._mean = x.mean(dim=0)
        deviation = x.std(dim=0, correction=0)
        self._scale = torch.where(deviation > 0, 1 / deviation, torch.zeros_like(deviation))
        x = self._scaled(features)
        self._targets, self._offset = targets, targets.mean(dim=0)
        wide = x.shape[0] < x.shape[1]
        values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
        kept = values > _VANISHING * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
        self._values, vectors = values[kept], vectors[:, kept]
        lengths = self._values.sqrt()
        self._left = vectors if wide else x @ vectors / lengths  # (N, R), orthonormal
        self._right = x.T @ vectors / lengths if wide else vectors  # (D, R), orthonormal
        self._along = self._left.T @ (targets - self._offset)  # (R, C)
        self.penalties = tuple(share * float(values.mean()) for share in RIDGES)

    def _scaled(self, features: Tensor) -> Tensor:
        return (features.double() - self._mean) * self._scale

    def predict(self, features: Tensor, penalty: float) -> Tensor:
        """(M, C) for (M, D)."""
        shrunk = self._values.sqrt() / (self._values + penalty)
        weights: Tensor = self._right @ (shrunk[:, None] * self._along)
        predicted: Tensor = self._scaled(features) @ weights + self._offset
        return predicted

    def left_out(self, penalty: float) -> Tensor:
        """(N, C): for each row of the data the prediction of the regression without it (with all rows' scaling)."""
        kept = self._values / (self._values + penalty)
        fitted = self._left @ (kept[:, None] * self._along) + self._offset
        leverage = (self._left.square() * kept).sum(dim=1, keepdim=True) + 1 / len(self._left)
        left_out: Tensor = self._targets - (self._targets - fitted) / (1 - leverage).clamp_min(_VANISHING)
        return left_out


def uniformity(tokens: Tensor) -> float:
    """log of the mean over pairs of different images of exp(-2 ||x - y||^2), x and y of unit length.

    0 when all tokens are one, lower the more evenly they spread: about -4 for many directions at random.

    Args:
        tokens: (N, D), N at least 2.

    Source: Wang, Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020, arXiv 2005.10242, section 4.1.
    """
    unit = normalize(tokens.double(), dim=1)
    distances = torch.pdist(unit)
    return float(torch.logsumexp(-2 * distances.square(), dim=0)) - math.log(len(distances))


def agreement(tokens: Tensor, twins: Tensor, *, k: int) -> float:
    """Mean share of an image's k nearest neighbours that are also those of its twin among the twins; 0 to 1.

    Neighbours by cosine similarity, the image itself left out. Unrelated features agree in k / (N - 1).

    Args:
        tokens, twins: (N, D) and (N, E), row by row of the same images.
        k: neighbours, 1 to N - 1.
    """
    own, theirs = _neighbours(tokens, k), _neighbours(twins, k)
    return float((own[:, :, None] == theirs[:, None, :]).sum()) / own.numel()


def _neighbours(tokens: Tensor, k: int) -> Tensor:
    """(N, k) indices."""
    unit = normalize(tokens.double(), dim=1)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-2.0)
    return cosines.topk(k, dim=1).indices
