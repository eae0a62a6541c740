"""From what is seen when training fails to a message that says the likely cause and the way out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PUBLISHED_LR, PUBLISHED_BATCH = 0.004, 1024
"""DINOv2's peak learning rate, for this many images per step; it goes with the square root of the batch."""
SMALL_BATCH = 32


@dataclass(frozen=True)
class Evidence:
    """What is known when a loss is not finite.

    Attributes:
        iteration, stage: where; iterations count from 0.
        losses: all terms, as sums over processes. own_losses: the terms of this process's own batch.
        precision: ``fp16``, ``bf16`` or ``fp32``, of the student's backbone. scale: the gradient scaler's, if any.
        learning_rate: the highest of the optimizer's. warmup_iterations: length of its first warm-up. clip_grad:
        ``optim.clip_grad``.
        global_batch: images per step over all processes.
        crops_not_finite, duplicate_share: of this process's batch: crops with a pixel that is not finite, share of
        images that are there twice.
        distinct_cls: as last measured, or None.
    """

    iteration: int
    stage: str
    losses: Mapping[str, float]
    own_losses: Mapping[str, float]
    precision: str
    scale: float | None
    learning_rate: float
    warmup_iterations: int
    clip_grad: float
    global_batch: int
    crops_not_finite: int
    duplicate_share: float
    distinct_cls: float | None

    @property
    def bad_terms(self) -> list[str]:
        """Names of the terms that are not finite."""
        return not_finite(self.losses)

    @property
    def usual_learning_rate(self) -> float:
        """DINOv2's published peak for this batch size."""
        return PUBLISHED_LR * math.sqrt(self.global_batch / PUBLISHED_BATCH)


def not_finite(losses: Mapping[str, float]) -> list[str]:
    """Names of the terms that are infinite or NaN."""
    return [name for name, value in losses.items() if not math.isfinite(value)]


def _images(e: Evidence) -> str | None:
    if not e.crops_not_finite:
        return None
    return f"{e.crops_not_finite} crops of the batch hold pixels that are not finite: look at its images"


def _elsewhere(e: Evidence) -> str | None:
    if not_finite(e.own_losses):
        return None
    return "this process's own terms are finite: the batch of another process is at fault, see its file and log"


def _learning_rate(e: Evidence) -> str | None:
    if e.learning_rate <= 2 * e.usual_learning_rate:
        return None
    return (
        f"the learning rate is {e.learning_rate:.3g}; DINOv2's published peak for {e.global_batch} images per step is "
        f"{e.usual_learning_rate:.2g}: lower optim.base_lr, and mind optim.scaling_rule"
    )


def _half_precision(e: Evidence) -> str | None:
    if e.precision != "fp16":
        return None
    return (
        "an activation went past 65504, the largest fp16 number: on GPUs that have bf16 set "
        "compute_precision.student.backbone.mixed_precision.param_dtype=bf16 (teacher and heads likewise)"
    )


def _warmup(e: Evidence) -> str | None:
    if e.iteration >= e.warmup_iterations:
        return None
    return (
        f"iteration {e.iteration} lies within the learning rate's warm-up of {e.warmup_iterations}: a longer "
        "optim.warmup_epochs or a lower optim.base_lr starts more gently"
    )


def _no_clipping(e: Evidence) -> str | None:
    return None if e.clip_grad else "gradients are not clipped (optim.clip_grad is 0): DINOv2's default is 3.0"


def _duplicates(e: Evidence) -> str | None:
    if e.duplicate_share >= 0.1:
        return f"{e.duplicate_share:.0%} of the batch's images are there more than once: check the data set"
    if e.distinct_cls is not None and e.distinct_cls < 0.5:
        return f"when last measured only {e.distinct_cls:.0%} of the images had a CLS token of their own: near collapse"
    return None


def _small_batch(e: Evidence) -> str | None:
    if e.global_batch >= SMALL_BATCH:
        return None
    return f"{e.global_batch} images per step are few for DINO's centers: more images per step are steadier"


def _all_terms(e: Evidence) -> str | None:
    if len(e.bad_terms) < len(e.losses):
        return None
    return (
        "all terms fail together, so the tokens or weights themselves are no longer finite: an earlier step was too "
        "large. Resume from an older checkpoint with a lower optim.base_lr"
    )


# Most telling first.
_CAUSES: tuple[Callable[[Evidence], str | None], ...] = (
    _images,
    _elsewhere,
    _learning_rate,
    _half_precision,
    _warmup,
    _no_clipping,
    _duplicates,
    _small_batch,
    _all_terms,
)


def likely_causes(evidence: Evidence) -> list[str]:
    """Causes that fit, most telling first; never empty."""
    found = [text for cause in _CAUSES if (text := cause(evidence)) is not None]
    return found or [
        "nothing unusual in batch and settings: resume from an older checkpoint with a lower optim.base_lr"
    ]


def diverged_message(evidence: Evidence, dump: str) -> str:
    """The message for a loss that is not finite; ``dump`` says where the batch is, or why it is nowhere."""
    terms = ", ".join(f"{name}={evidence.losses[name]}" for name in evidence.bad_terms)
    scale = "" if evidence.scale is None else f", gradient scale {evidence.scale:g}"
    return (
        f"the loss is not finite at iteration {evidence.iteration} (stage {evidence.stage!r}): {terms}\n"
        f"Seen: {evidence.precision}, learning rate {evidence.learning_rate:.3g}, {evidence.global_batch} images per "
        f"step{scale}.\n{_listed(likely_causes(evidence))}\n{dump}\n"
        "Then start the same command again: it resumes from the last checkpoint. If that fails at once, the damage is "
        "older: name an earlier checkpoint in the file last_checkpoint."
    )


def skipped_message(in_a_row: int, total: int, *, iteration: int, stage: str, precision: str, scale: float) -> str:
    """The message for too many optimizer steps left out one after the other."""
    causes = [
        "gradients overflow fp16 at any scale: lower optim.base_lr, or train in bf16",
        "a gradient is NaN whatever its scale: look at the loss terms and signs in training_metrics.json before this",
    ]
    if precision != "fp16":
        causes = [*causes[1:], f"{precision} needs no gradient scaler: set compute_precision.grad_scaler=false"]
    return (
        f"the gradient scaler left out {in_a_row} optimizer steps in a row, the last at iteration {iteration} (stage "
        f"{stage!r}), {total} in all; its scale has come down to {scale:g}. Nothing was learned meanwhile.\n"
        f"{_listed(causes)}\n"
        "The limit is health.max_skipped_steps. The weights are those before the first of these steps."
    )


def _listed(causes: list[str]) -> str:
    rows = "".join(f"\n  {number}. {text}" for number, text in enumerate(causes, 1))
    return f"Likely causes, the most telling first:{rows}"
