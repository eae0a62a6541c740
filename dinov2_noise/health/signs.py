"""Signs of collapse, each a pure function of what a step has computed anyway.

A network collapses when different images get the same output. All signs therefore compare *different* images: two crops
of one image are meant to agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2_noise.health.koleo import nearest

SAME = 1e-3
"""Distance of L2-normalised tokens below which two images count as having the same token: half precision's rounding."""


@dataclass(frozen=True)
class Signs:
    """One measurement.

    Attributes:
        feature_std, rankme, distinct_cls, anchor_gap: see the functions below; the gap is None without an anchor.
        prototype_entropy, assignment_entropy: `PrototypeEntropy` as shares of ln K.
        n_tokens, n_dims, n_prototypes: N, D and K, which thresholds depend on.
    """

    feature_std: float
    rankme: float
    distinct_cls: float
    prototype_entropy: float
    assignment_entropy: float
    anchor_gap: float | None
    n_tokens: int
    n_dims: int
    n_prototypes: int

    def meters(self) -> Mapping[str, float]:
        """The measured values by name, without those that do not exist."""
        sizes = ("n_tokens", "n_dims", "n_prototypes")
        return {name: value for name, value in asdict(self).items() if name not in sizes and value is not None}


class PrototypeEntropy(NamedTuple):
    """Entropies of the teacher's assignment of images to K prototypes; scalars.

    ``nats``: of the mean assignment over the batch; its exponential is the number of prototypes in use. ``share``: the
    same as a share of ln K. ``per_sample_share``: mean entropy of the single assignments, as a share of ln K.
    """

    nats: Tensor
    share: Tensor
    per_sample_share: Tensor


def feature_std(tokens: Tensor) -> Tensor:
    """Standard deviation over the batch of L2-normalised tokens, averaged over dimensions.

    1/sqrt(D) when directions are spread evenly, 0 when all tokens point the same way. As in Chen, He, "Exploring Simple
    Siamese Representation Learning", 2020, arXiv 2011.10566, section 4.1.

    Args:
        tokens: (N, D).
    """
    return F.normalize(tokens.float(), dim=-1).std(dim=0, correction=0).mean()


def rank_me(tokens: Tensor, eps: float = 1e-7) -> Tensor:
    """Effective rank: exp of the entropy of the singular values' shares; 1 to min(N, D).

    Garrido, Balestriero, Najman, LeCun, "RankMe: Assessing the downstream performance of pretrained self-supervised
    representations by their rank", 2022, arXiv 2210.02885, section 3.1: p_k = s_k / ||s||_1 + eps, exp(-sum_k p_k log
    p_k). Departure: singular values come from the smaller Gram matrix in float64, many times faster than a
    decomposition and exact to 1e-8 of the largest.

    Args:
        tokens: (N, D), neither centered nor normalised.
    """
    matrix = tokens.double()
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = singular / singular.sum().clamp_min(torch.finfo(torch.float64).tiny) + eps
    return torch.exp(-(shares * shares.log()).sum())


def distinct_share(tokens: Tensor, tolerance: float = SAME) -> Tensor:
    """Share of tokens whose nearest other token, both L2-normalised, is farther than ``tolerance``.

    Args:
        tokens: (N, D), N at least 2, of different images.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    # Not from the cosine, whose rounding is as large as the tolerance squared.
    distances: Tensor = (unit - unit[nearest(unit)]).norm(dim=-1)
    return (distances > tolerance).float().mean()


def prototype_entropy(probabilities: Tensor) -> PrototypeEntropy:
    """How many prototypes the batch uses, and how undecided each assignment is.

    Args:
        probabilities: (N, K), rows sum to 1.
    """
    return entropy_of(probabilities.float().mean(dim=0), mean_entropy(probabilities))


def mean_entropy(probabilities: Tensor) -> Tensor:
    """Mean over rows of (N, K) ``probabilities`` of their entropy, in nats."""
    entropy: Tensor = torch.special.entr(probabilities.float()).sum(dim=-1).mean()
    return entropy


def entropy_of(mean: Tensor, per_sample: Tensor) -> PrototypeEntropy:
    """From the mean assignment (K,) and the mean entropy of the single ones, both over all processes."""
    nats: Tensor = torch.special.entr(mean).sum()
    uniform = math.log(mean.shape[-1])
    return PrototypeEntropy(nats, nats / uniform, per_sample / uniform)


def anchor_gap(tokens: Tensor, anchor: Tensor) -> Tensor:
    """1 - mean cosine between each image's token and the frozen teacher's token of its denoised twin; 0 to 2.

    Args:
        tokens, anchor: (N, D), in the same order.
    """
    return 1 - F.cosine_similarity(tokens.float(), anchor.float(), dim=-1).mean()
