"""What a step computes anyway and the signs of collapse are measured on; hooks exist during measured steps only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dinov2_noise.health.signs import (
    Signs,
    anchor_gap,
    distinct_share,
    entropy_of,
    feature_std,
    mean_entropy,
    rank_me,
)

MAX_TOKENS = 2048
"""Tokens over all processes: enough for the rank of any backbone, and milliseconds to measure."""
MAX_LOGITS = 256
"""Rows of teacher logits per process; one has as many numbers as there are prototypes."""


class KeptTokens:
    """Copies of the first global crops' outputs, one row per image, from the first forward pass of a step.

    With micro-batches that is the first part.

    Attributes:
        student: (B, D) CLS tokens, as KoLeo and the heads get them. teacher_logits: (B, K) of the EMA teacher.
        frozen: (B, D) CLS tokens of the denoised twins, None without an anchor.
    """

    def __init__(self) -> None:
        self.student: Tensor | None = None
        self.teacher_logits: Tensor | None = None
        self.frozen: Tensor | None = None
        self._n_teacher_crops = 0

    def keep_student(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self.student is None:
            self.student = _first_crops(output[0]["x_norm_clstoken"])

    def keep_teacher(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._n_teacher_crops = self._n_teacher_crops or len(output["x_norm_clstoken"])

    def keep_logits(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        # The anchor sends the frozen teacher's tokens through this head too, before the EMA teacher's backbone has run.
        if self.teacher_logits is None and self._n_teacher_crops:
            self.teacher_logits = _first_crops(output[: self._n_teacher_crops])[:MAX_LOGITS].clone()

    def keep_frozen(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self.frozen is None:
            self.frozen = _first_crops(output["x_norm_clstoken"])


def _first_crops(rows: Tensor) -> Tensor:
    """The first of each image's two global crops; a copy, which does not keep the patch tokens alive."""
    return rows[: len(rows) // 2].detach().clone()


@contextmanager
def kept_tokens(model: Any) -> Iterator[KeptTokens]:
    """Keep tokens of the forward passes within.

    Args:
        model: `SSLMetaArch`, wrapped for training.
    """
    kept = KeptTokens()
    hooks = [
        (model.student["backbone"], kept.keep_student),
        (model.teacher["backbone"], kept.keep_teacher),
        (model.teacher["dino_head"], kept.keep_logits),
    ]
    frozen = getattr(model, "frozen_teacher", None)
    if frozen is not None:
        hooks.append((frozen.networks["backbone"], kept.keep_frozen))
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield kept


@torch.no_grad()
def measure(kept: KeptTokens, center: Tensor | None, teacher_temp: float) -> Signs | None:
    """The signs over the batches of all processes, the same on each; every process must call it.

    Args:
        kept: of one step.
        center: (1, K), DINO's, as used in that step; None under Sinkhorn-Knopp, which balances within the batch: then
            the batch's mean logits take its place.
        teacher_temp: of that step.

    Returns:
        None if a token is not finite or there are fewer than two.
    """
    assert kept.student is not None
    assert kept.teacher_logits is not None
    world_size = dist.get_world_size()
    tokens = _gather(kept.student[: max(MAX_TOKENS // world_size, 1)].float())
    logits = kept.teacher_logits.float()
    center = logits.mean(dim=0, keepdim=True) if center is None else center.float()
    probabilities = torch.softmax((logits - center) / teacher_temp, dim=-1)
    means = [probabilities.mean(dim=0), mean_entropy(probabilities).view(1)]
    if kept.frozen is not None and kept.frozen.shape == kept.student.shape:
        means.append(anchor_gap(kept.student, kept.frozen).view(1))
    joint = torch.cat(means)
    if world_size > 1:
        dist.all_reduce(joint)
    joint = joint / world_size
    if len(tokens) < 2 or not bool(torch.isfinite(tokens).all() & torch.isfinite(joint).all()):
        return None
    n_prototypes = probabilities.shape[1]
    entropy = entropy_of(joint[:n_prototypes], joint[n_prototypes])
    values = [feature_std(tokens), rank_me(tokens), distinct_share(tokens), entropy.share, entropy.per_sample_share]
    numbers: list[float] = torch.stack([value.double() for value in (*values, *joint[n_prototypes + 1 :])]).tolist()
    return Signs(
        feature_std=numbers[0],
        rankme=numbers[1],
        distinct_cls=numbers[2],
        prototype_entropy=numbers[3],
        assignment_entropy=numbers[4],
        anchor_gap=numbers[5] if len(numbers) > 5 else None,
        n_tokens=len(tokens),
        n_dims=tokens.shape[1],
        n_prototypes=n_prototypes,
    )


def _gather(rows: Tensor) -> Tensor:
    """Rows of all processes; each has as many."""
    if dist.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
