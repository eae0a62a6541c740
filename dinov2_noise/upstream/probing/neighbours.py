"""The k-nearest-neighbour probe of upstream's `eval/knn.py`, with the training features kept on disk.

Each of the k training images closest in cosine similarity votes for its class with weight exp(similarity / T), T =
0.07. Read against lines 103-185 (`KnnModule`) and 263-330.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize, softmax

from dinov2_noise.errors import CheckpointError, ConfigError
from dinov2_noise.files import atomic_path

TEMPERATURE = 0.07


@dataclass(frozen=True)
class Neighbours:
    """Training images to vote.

    Attributes:
        features: (N, D) class tokens of unit length. labels: (N,).
        ks: numbers of neighbours asked for.
    """

    features: Tensor
    labels: Tensor
    ks: Sequence[int]
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        require_votes(self.labels, self.ks)

    @property
    def n_classes(self) -> int:
        return int(self.labels.max()) + 1

    def to(self, device: torch.device) -> Neighbours:
        return Neighbours(self.features.to(device), self.labels.to(device), self.ks, self.temperature)

    def predict(self, class_tokens: Tensor) -> dict[int, Tensor]:
        """Predicted class (B,) for each k, of class tokens (B, D) of any length."""
        return {k: votes.argmax(dim=1) for k, votes in self.votes(class_tokens).items()}

    def votes(self, class_tokens: Tensor) -> dict[int, Tensor]:
        """Weight of the votes for each class, (B, C), for each k, of class tokens (B, D) of any length."""
        similarity = normalize(class_tokens.float(), dim=1) @ self.features.T
        nearest, index = similarity.topk(max(self.ks), dim=1)
        weights, classes = softmax(nearest / self.temperature, dim=1), self.labels[index]
        found = {}
        for k in self.ks:
            votes = torch.zeros(len(weights), self.n_classes, device=weights.device)
            found[k] = votes.scatter_add_(1, classes[:, :k], weights[:, :k])
        return found


def require_votes(labels: Tensor, ks: Sequence[int]) -> None:
    """Check that there are as many training images as are to vote.

    Raises:
        ConfigError: there are not.
    """
    if not ks or min(ks) < 1 or max(ks) > len(labels):
        raise ConfigError(f"--knn {list(ks)}: numbers from 1 to the {len(labels)} training images")


def save_features(path: Path, features: Tensor, labels: Tensor) -> None:
    """Keep training features (N, D) and labels (N,), atomically."""
    with atomic_path(path) as temporary:
        torch.save({"features": features.cpu(), "labels": labels.cpu()}, temporary)


def load_features(path: Path) -> tuple[Tensor, Tensor]:
    """What `save_features` wrote.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content["features"], content["labels"]
    except Exception as cause:
        raise CheckpointError(f"cannot read the kept features {path} ({cause}): delete the file") from cause
