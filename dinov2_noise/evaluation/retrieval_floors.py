"""What retrieval reaches without a trained network: chance, and the colours of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.evaluation.retrieval_scores import (
    PROTOCOLS,
    Relevance,
    average_precision,
    precision_at,
    ranks_per_query,
)

LEVELS = 4
_DRAWS = 20


def colour_features(images: Tensor) -> Tensor:
    """Joint colour histograms of RGB images: (B, 3, H, W) in [0, 1] → (B, 64), of unit length.

    4 levels per channel; the square root of the shares, so that the inner product of two is their Bhattacharyya
    coefficient (A. Bhattacharyya, On a measure of divergence between two statistical populations, 1943).
    """
    levels = (images * LEVELS).long().clamp_(0, LEVELS - 1)
    bins = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    counts = torch.stack([torch.bincount(one.flatten(), minlength=LEVELS**3) for one in bins])
    return (counts / counts.sum(dim=1, keepdim=True)).sqrt().float()


def chance(relevance: Sequence[Relevance], n_images: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Means of random rankings: per protocol ``map`` and ``mp10``; 20 rankings per query."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(_DRAWS):
        orders = [rng.permutation(n_images) for _ in relevance]
        for protocol in PROTOCOLS:
            ranks = [one for one in ranks_per_query(orders, relevance, protocol) if one is not None]
            found.setdefault(protocol, []).extend((average_precision(one), precision_at(one, 10)) for one in ranks)
    means = {protocol: np.mean(values, axis=0) for protocol, values in found.items() if values}
    return {protocol: {"map": float(mean[0]), "mp10": float(mean[1])} for protocol, mean in means.items()}
