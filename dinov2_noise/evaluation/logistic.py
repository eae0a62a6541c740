"""A linear probe in this process: multinomial logistic regression on features, its regularisation chosen honestly.

Features are standardised by the training images. Loss: ``C Σ cross-entropy + ||W||² / 2``, minimised by L-BFGS from
zero: no learning rate, no epochs, no random start. C is the best of `STRENGTHS` by cross-entropy on a fifth of the
**training** images; then all are fitted again with it. Upstream's `eval/linear.py` chooses among 52 heads on the
validation images.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import ConfigError, MissingFolderError
from dinov2_noise.evaluation.label_task import held_out

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.2
_MOST_STEPS, _TOLERANCE = 2000, 1e-5  # of the largest entry of the gradient

Features = NDArray[np.float32]
Targets = NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """A linear classifier.

    Attributes:
        mean, scale: (D,) of the training features. weight: (C, D). bias: (C,).
        strength: C of the loss. chosen_on: images it was chosen on; 0: too few to choose, it is 1.
        has_converged: whether the solver found the minimum within its number of steps.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    chosen_on: int
    has_converged: bool

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """(N, C) of features (N, D); rows add up to 1."""
        logits = ((features - self.mean) / self.scale) @ self.weight.T + self.bias
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = likely / likely.sum(axis=1, keepdims=True)
        return probabilities


def fit(
    features: Features, targets: Targets, n_classes: int, *, seed: int, strengths: Sequence[float] = STRENGTHS
) -> Fitted:
    """Fit all images, with the regularisation that does best on a part that was held out.

    Args:
        features: (N, D). targets: (N,) class indices; a class below ``n_classes`` that none has is never told.
        seed: of the draw of that part.

    Raises:
        MissingFolderError: scikit-learn is not installed.
        ConfigError: all images are of one class.
    """
    if len(np.unique(targets)) < 2:
        raise ConfigError("a linear probe needs images of two classes")
    kept, tested = _parts(targets, seed)
    strength = 1.0
    if len(tested):
        rest = _Problem(features[kept], targets[kept], n_classes)
        losses = [_loss(rest.solve(value), features[tested], targets[tested]) for value in strengths]
        strength = strengths[int(np.argmin(losses))]  # the first, most regularised, of equals
    return _Problem(features, targets, n_classes).solve(strength, chosen_on=len(tested))


def require_solver() -> ModuleType:
    """Check before long work that logistic regressions can be fitted.

    Raises:
        MissingFolderError: scikit-learn is not installed.
    """
    try:
        from sklearn import linear_model
    except ImportError as cause:
        raise MissingFolderError(
            f"the linear probe needs scikit-learn ({cause}): pip install 'dinov2-noise[probe]', or use --upstream"
        ) from cause
    module: ModuleType = linear_model
    return module


def _parts(targets: Targets, seed: int) -> tuple[Targets, Targets]:
    """Indices (kept, held out); a class with a single image is kept."""
    counts = np.bincount(targets)
    several = np.flatnonzero(counts[targets] > 1)
    if len(several) == 0:
        return np.arange(len(targets)), several
    kept, tested = held_out(targets[several], HELD_OUT, seed)
    single = np.flatnonzero(counts[targets] == 1)
    return np.sort(np.concatenate([several[kept], single])), several[tested]


class _Problem:
    """Standardised features and their classes, for several regularisations; each starts from the last one's end."""

    def __init__(self, features: Features, targets: Targets, n_classes: int) -> None:
        self._mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        self._scale = np.where(deviation > 1e-12, deviation, 1.0)
        self._inputs = (features - self._mean) / self._scale
        self._targets, self._n_classes = targets, n_classes
        self._solver: Any = require_solver().LogisticRegression(tol=_TOLERANCE, max_iter=_MOST_STEPS, warm_start=True)

    def solve(self, strength: float, *, chosen_on: int = 0) -> Fitted:
        self._solver.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few steps; told by has_converged
            self._solver.fit(self._inputs, self._targets)
        weight, bias = self._all_classes(self._solver.coef_, self._solver.intercept_)
        has_converged = bool(max(self._solver.n_iter_) < _MOST_STEPS)
        return Fitted(self._mean, self._scale, weight, bias, strength, chosen_on, has_converged)

    def _all_classes(
        self, weight: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The solver knows the classes that occur, and of two it fits the second against the first alone."""
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        known = self._solver.classes_
        whole = np.zeros((self._n_classes, weight.shape[1]))
        base = np.full(self._n_classes, -np.inf)
        whole[known], base[known] = weight, bias
        return whole, base


def _loss(fitted: Fitted, features: Features, targets: Targets) -> float:
    right = np.take_along_axis(fitted.probabilities(features), targets[:, None], axis=1)
    return float(-np.log(np.maximum(right, 1e-12)).mean())
