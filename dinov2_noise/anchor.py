"""The anchor of NCT: the student is also pulled towards a teacher frozen at the end of the denoised stage.

    L = L_dinov2 + weight * (dino_local + dino_global + ibot)

(a factor for each term where a config sets one; 1 as published).

The frozen teacher sees the two denoised global crops only, made with the same random draws as their noisy twins; the
terms are those of DINOv2's main loss with the same scales, without KoLeo. The student's outputs are those of the main
loss: nothing runs twice.

Source: "Ditch the Denoiser: Emergence of Noise Robustness in Self-Supervised Learning from Data Curriculum", arXiv
2505.12191, the regularised curriculum (NCT). Departure: cross-entropies are in float32 whatever the inputs' dtype, and
both targets of a local crop share one pass. Shapes: B images per rank, K prototypes, M masked patches, N rows of any
kind.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

# Upstream's scale of the iBOT term: twice for the two global crops processed together, times 1 / 2 as their mean.
_IBOT_SCALE = 2 * 0.5


class AnchorTerms(NamedTuple):
    """The three terms, float32 scalars, before the anchor's weight."""

    dino_local: torch.Tensor
    dino_global: torch.Tensor
    ibot: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """Sum of the three: as published one weight holds for all."""
        return self.dino_local + self.dino_global + self.ibot

    def weighted(self, dino_local: float, dino_global: float, ibot: float) -> torch.Tensor:
        """Sum of the three, each times a factor of its own."""
        return dino_local * self.dino_local + dino_global * self.dino_global + ibot * self.ibot


def cross_entropy(
    student_logits: torch.Tensor, target_probabilities: torch.Tensor, student_temperature: float = 0.1
) -> torch.Tensor:
    """-sum_k target_k * log softmax(student / temperature)_k, in float32; no gradient reaches the target.

    Args:
        student_logits: (N, K), or any shape (…, K) to which the target broadcasts.
        target_probabilities: (N, K); rows need not sum to 1.
        student_temperature: positive.

    Returns:
        (N,), or the broadcast shape without its last axis.
    """
    log_probabilities = torch.log_softmax(student_logits.float() / student_temperature, dim=-1)
    targets = target_probabilities.detach().float()
    # a product of vectors instead of a sum of products: one (N, K) tensor less at 65,536 prototypes
    return -(log_probabilities.unsqueeze(-2) @ targets.unsqueeze(-1)).squeeze(-1).squeeze(-1)


def anchor_terms(
    *,
    student_local: torch.Tensor | None,
    student_global: torch.Tensor,
    student_masked: torch.Tensor | None,
    target_global: torch.Tensor,
    target_masked: torch.Tensor | None,
    masks_weight: torch.Tensor | None,
    n_local_crops: int,
    n_images_masked_denominator: int | None = None,
    student_temperature: float = 0.1,
) -> AnchorTerms:
    """The anchor's terms from the outputs of the student's and the frozen teacher's heads.

    With n = n_local_crops, D = 2 + max(2 n, 1) (upstream counts one local term even without local crops), CE the mean
    over the batch:

        dino_local  = sum over local crops l and both targets t of CE(l, t) / D
        dino_global = 2 * CE(student_global, target_global) / D
        ibot        = sum(masks_weight * CE(student_masked, target_masked)) / n_images * 2 * 0.5

    Args:
        student_local: (n_local_crops * B, K) logits, crop after crop; ``None`` or empty when there are no local crops.
        student_global: (2 * B, K) logits.
        student_masked: (M, K) logits of the masked patches, without padding; ``None`` when iBOT is off.
        target_global: (2 * B, K) probabilities **in swapped order**: rows 0 … B - 1 are the second crop's, the target
            of the student's first.
        target_masked: (M, K) probabilities at the same patches, ``None`` together with ``student_masked``.
        masks_weight: (M,), per patch 1 / (masked patches of its crop); ``None`` together with ``student_masked``.
        n_local_crops: per image, 0 or more.
        n_images_masked_denominator: number of global crops the masks were drawn for, 2 * B when not given.
        student_temperature: of DINOv2's student.

    Raises:
        ValueError: shapes or ``None`` s that do not go together.
    """
    _check(student_local, student_global, target_global, n_local_crops)
    n_images = student_global.shape[0] // 2
    n_loss_terms = 2 + max(2 * n_local_crops, 1)
    dino_local = student_global.new_zeros((), dtype=torch.float32)
    if n_local_crops > 0 and student_local is not None:
        # cross-entropy is linear in the target: both targets at once
        both_targets = target_global.float().reshape(2, n_images, -1).sum(dim=0)
        crops = student_local.reshape(n_local_crops, n_images, -1)
        dino_local = cross_entropy(crops, both_targets, student_temperature).mean(dim=1).sum() / n_loss_terms
    dino_global = 2 * cross_entropy(student_global, target_global, student_temperature).mean() / n_loss_terms
    n_masked_images = student_global.shape[0] if n_images_masked_denominator is None else n_images_masked_denominator
    ibot = _ibot(student_masked, target_masked, masks_weight, n_masked_images, student_temperature)
    return AnchorTerms(dino_local, dino_global, dino_global.new_zeros(()) if ibot is None else ibot)


def _ibot(
    student: torch.Tensor | None,
    target: torch.Tensor | None,
    masks_weight: torch.Tensor | None,
    n_images: int,
    student_temperature: float,
) -> torch.Tensor | None:
    if student is None and target is None:
        return None
    if student is None or target is None or masks_weight is None:
        raise ValueError("student_masked, target_masked and masks_weight come together or not at all")
    if student.shape != target.shape or masks_weight.shape != student.shape[:1]:
        shapes = [tuple(tensor.shape) for tensor in (student, target, masks_weight)]
        raise ValueError(
            f"student_masked {shapes[0]}, target_masked {shapes[1]} and masks_weight {shapes[2]} do not match"
        )
    per_patch = cross_entropy(student, target, student_temperature)
    return (masks_weight.float() * per_patch).sum() / n_images * _IBOT_SCALE


def _check(
    student_local: torch.Tensor | None, student_global: torch.Tensor, target_global: torch.Tensor, n_local_crops: int
) -> None:
    n_rows, n_prototypes = student_global.shape
    if n_rows % 2 or target_global.shape != student_global.shape:
        raise ValueError(
            f"student_global {tuple(student_global.shape)} and target_global {tuple(target_global.shape)} "
            "must both be (2 * B, K), one block of B rows per global crop"
        )
    local_shape = (0, n_prototypes) if student_local is None else tuple(student_local.shape)
    expected = (n_local_crops * n_rows // 2, n_prototypes)
    if local_shape != expected:
        raise ValueError(
            f"student_local is {local_shape}, but {n_local_crops} local crops of {n_rows // 2} images make {expected}"
        )
