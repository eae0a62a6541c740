"""From features to the values of one measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2_noise.health.signs import rank_me
from dinov2_noise.monitor.measures import agreement, knn_top1, linear_top1, uniformity

_PARTNERS = {"denoised": "twin_agreement", "clean": "clean_agreement"}


@dataclass(frozen=True)
class Features:
    """Of n images in one view.

    Attributes:
        cls, patch: CLS token and mean patch token after the last norm, (n, D) float32 on the CPU.
    """

    cls: Tensor
    patch: Tensor

    @property
    def both(self) -> Tensor:
        """(n, 2 D): what DINOv2's linear evaluation reads of one block."""
        return torch.cat([self.cls, self.patch], dim=1)

    @property
    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.cls).all() & torch.isfinite(self.patch).all())


def unlabelled_values(views: Mapping[str, Features], *, k: int) -> dict[str, float]:
    """RankMe and uniformity of the CLS tokens of each view, and how far neighbours agree between ``noisy`` and others.

    ``k`` is lowered to what the number of images allows; views that are not finite, and measures of too few images,
    are left out.
    """
    return dict(_unlabelled(_finite(views), k))


def _unlabelled(views: Mapping[str, Features], k: int) -> Iterator[tuple[str, float]]:
    for name, features in views.items():
        if len(features.cls) >= 2:
            yield f"rank_me/{name}", float(rank_me(features.cls))
            yield f"uniformity/{name}", uniformity(features.cls)
    for name, measure in _PARTNERS.items():
        if {name, "noisy"} <= {*views} and len(views["noisy"].cls) >= 3:
            noisy, twins = views["noisy"].cls, views[name].cls
            yield measure, agreement(noisy, twins, k=min(k, len(noisy) - 2))


def probe_values(
    train: Mapping[str, Features],
    train_labels: Tensor,
    val: Mapping[str, Features],
    val_labels: Tensor,
    *,
    k: int,
) -> dict[str, float]:
    """Top-1 accuracy of both probes, each view's own: its training images classify its validation images.

    k-NN reads CLS tokens, the linear probe [CLS, mean patch].
    """
    train, val = _finite(train), _finite(val)
    found = {}
    for name in (name for name in train if name in val):
        known, asked = train[name], val[name]
        found[f"knn_top1/{name}"] = knn_top1(known.cls, train_labels, asked.cls, val_labels, k=k)
        found[f"linear_top1/{name}"] = linear_top1(known.both, train_labels, asked.both, val_labels)
    return found


def _finite(views: Mapping[str, Features]) -> dict[str, Features]:
    return {name: features for name, features in views.items() if features.is_finite}


def described(values: Mapping[str, float]) -> str:
    """``knn_top1 clean 41.0 % noisy 35.2 %, rank_me noisy 83.1, …``, in the order of ``values``."""
    measures: dict[str, list[str]] = {}
    for name, value in values.items():
        measure, _, view = name.partition("/")
        is_share = measure.endswith(("top1", "agreement"))
        text = f"{value:.1%}" if is_share else f"{value:.{1 if abs(value) >= 10 else 2}f}"
        measures.setdefault(measure, []).append(f"{view} {text}".strip())
    return ", ".join(f"{measure} {' '.join(texts)}" for measure, texts in measures.items())
