"""Pictures of what a backbone finds alike: principal components of patch tokens, and nearest neighbours of images.

Principal components as colours: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023,
arXiv 2304.07193, section 7.5. Differences: no background is cut away by the first component, and the components are
fitted on the clean and the noisy patches of all shown images together, so that a colour means the same in all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TAILS_PERCENT = 2.0
"""Of the projections at each end: single odd patches must not flatten the colours of all others."""


def principal_colours(tokens: NDArray[Any], n_components: int = 3) -> Array:
    """Projections of tokens (N, D) onto their first principal components as values in [0, 1], (N, n_components).

    Each component is turned so that its projections are skewed to the right (their third moment is positive), which
    decides its sign whatever basis the tokens are written in; then its 2nd and 98th percentile become 0 and 1. A
    component without spread, or one that does not exist, is 0.5 throughout.

    Raises:
        ValueError: the tokens are no (N, D) array, or not finite.
    """
    rows = np.asarray(tokens, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"tokens (N, D) are needed, not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("tokens are not finite: has the training diverged?")
    centred = rows - rows.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.full((len(rows), n_components), 0.5)
    for column in range(min(n_components, len(sizes))):
        if sizes[column] > 1e-9 * max(1.0, float(np.abs(rows).max())):
            found[:, column] = _spread_out(left[:, column] * sizes[column])
    return found


def _spread_out(projections: Array) -> Array:
    if (projections**3).sum() < 0:
        projections = -projections
    low, high = np.percentile(projections, [_TAILS_PERCENT, 100 - _TAILS_PERCENT])
    if high <= low:
        low, high = projections.min(), projections.max()
    scaled: Array = np.clip((projections - low) / (high - low), 0.0, 1.0)
    return scaled


def colour_maps(tokens: NDArray[Any]) -> NDArray[np.uint8]:
    """(M, h, w, 3) maps of the patch tokens (M, h, w, D) of M pictures, fitted on all of them together."""
    *grid, width = tokens.shape
    colours = principal_colours(tokens.reshape(-1, width))
    return np.round(255 * colours).astype(np.uint8).reshape(*grid, 3)


def nearest(queries: NDArray[Any], candidates: NDArray[Any], count: int, own: NDArray[np.int64] | None = None) -> Any:
    """(Q, count) indices of the candidates closest in cosine to each query, and (Q, count) cosines, closest first.

    Args:
        queries, candidates: (Q, D) and (N, D) of any lengths. count: at most N, or N - 1 with ``own``.
        own: (Q,) index of each query's own image among the candidates, which is left out; -1 for none.

    Raises:
        ValueError: there are fewer candidates.
    """
    spare = len(candidates) - (0 if own is None else 1)
    if not 1 <= count <= spare:
        raise ValueError(f"{count} neighbours of {spare} candidates")
    cosines = _unit(queries) @ _unit(candidates).T
    if own is not None:
        rows = np.flatnonzero(own >= 0)
        cosines[rows, own[rows]] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def _unit(rows: NDArray[Any]) -> Array:
    wide = np.asarray(rows, np.float64)
    unit: Array = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit
