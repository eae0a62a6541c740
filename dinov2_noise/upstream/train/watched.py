"""`SSLMetaArch` is watched: a loss that is not finite ends the run with a reason, skipped steps are counted, signs of
collapse are measured.

Nothing here waits for the device in an ordinary step. Upstream's loop reads the loss terms one by one, each a wait;
`CheckedLosses` fetches them together, after the sum over processes, so that all processes stop or none. Read against
lines 218-265 of upstream's ``train/train.py``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from dinov2_noise.errors import DivergedError
from dinov2_noise.health import (
    Alarms,
    CheckedLosses,
    Evidence,
    KoLeo,
    Signs,
    SkippedSteps,
    diverged_message,
    skipped_message,
)
from dinov2_noise.health.causes import not_finite
from dinov2_noise.health.losses import fetch
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.logging.helpers import hide, show
from dinov2_noise.upstream.train import bad_batch
from dinov2_noise.upstream.train.bad_batch import Step
from dinov2_noise.upstream.train.kept_tokens import KeptTokens, kept_tokens, measure

logger = logging.getLogger("dinov2")


class Watched:
    """The watch, around all other parts of a step; without a curriculum it does nothing."""

    cfg: Any
    koleo_loss: Any
    _run: runtime.Run | None
    _iteration: Any

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)  # type: ignore[call-arg]
        self._watch = None if self._run is None else Watch(self._run, self)
        if self._run is not None and hasattr(self, "koleo_loss"):
            self.koleo_loss = KoLeo()
            logger.info("dinov2-noise: KoLeo in float32, duplicates handled (docs/health.md)")

    def forward_backward(self, images: dict[str, Any], teacher_temp: float) -> dict[str, Tensor]:
        """The step below; its result checks itself when upstream reads it."""
        if self._watch is None or "number" not in images:  # without a number: the part that needs it says so
            return super().forward_backward(images, teacher_temp)  # type: ignore[misc, no-any-return]
        step = self._watch.begin(images, self._iteration(images))
        if not self._watch.is_due(step.iteration):
            losses = super().forward_backward(images, teacher_temp)  # type: ignore[misc]
            return self._watch.checked(losses, step)
        with kept_tokens(self) as kept:
            losses = super().forward_backward(images, teacher_temp)  # type: ignore[misc]
        self._watch.measure(kept, step, teacher_temp)
        return self._watch.checked(losses, step)


class Watch:
    """What one process of a run keeps in mind from step to step.

    Args:
        run: with the section ``health``. model: the watched `SSLMetaArch`.
    """

    def __init__(self, run: runtime.Run, model: Any) -> None:
        self._run, self._model = run, model
        self._warmup_iterations = int(run.cfg.optim.warmup_epochs) * int(run.cfg.train.OFFICIAL_EPOCH_LENGTH)
        self._alarms = Alarms(quiet_before=self._warmup_iterations)
        self._skipped = SkippedSteps()
        self._signs: Signs | None = None

    def begin(self, images: Mapping[str, Any], iteration: int) -> Step:
        """A step begins."""
        if self._model.fp16_scaler is not None and self._run.optimizer is not None:
            self._skipped.begin(self._run.optimizer)
        stage = self._run.curriculum.stages[images["stage"]].name
        return Step(iteration, stage, images, dist.get_rank(), dist.get_world_size())

    def is_due(self, iteration: int) -> bool:
        """Whether this step's signs are measured."""
        period = self._run.health.period_iterations
        return period > 0 and iteration % period == 0

    def checked(self, losses: Mapping[str, Tensor], step: Step) -> CheckedLosses:
        """The step's result."""
        # Upstream sums in place: what this process's own batch gave is kept on the device, without waiting.
        own = {name: value.detach().clone() for name, value in losses.items()} if step.world_size > 1 else None
        return CheckedLosses(losses, partial(self._check, step=step, own=own))

    def _check(self, losses: dict[str, float], *, step: Step, own: Mapping[str, Tensor] | None) -> None:
        """After optimizer step and sum over processes.

        Raises:
            DivergedError: a term is not finite, or too many steps were skipped in a row.
        """
        if not_finite(losses):
            _stop(self._diverged(losses, losses if own is None else fetch(own), step))
        if self._model.fp16_scaler is not None:
            self._check_skipped(step)

    def _check_skipped(self, step: Step) -> None:
        in_a_row = self._skipped.end()
        if self._run.metrics is not None:
            show(self._run.metrics, "skipped_steps", self._skipped.total, "{value:.0f}")
        if in_a_row >= self._run.health.max_skipped_steps:
            _stop(
                skipped_message(
                    in_a_row,
                    self._skipped.total,
                    iteration=step.iteration,
                    stage=step.stage,
                    precision=self._precision,
                    scale=self._model.fp16_scaler.get_scale(),
                )
            )

    def _diverged(self, losses: Mapping[str, float], own: Mapping[str, float], step: Step) -> str:
        cfg, optimizer, scaler = self._run.cfg, self._run.optimizer, self._model.fp16_scaler
        rates = [] if optimizer is None else [float(group["lr"]) for group in optimizer.param_groups]
        evidence = Evidence(
            iteration=step.iteration,
            stage=step.stage,
            losses=losses,
            own_losses=own,
            precision=self._precision,
            scale=None if scaler is None else scaler.get_scale(),
            learning_rate=max(rates, default=0.0),
            warmup_iterations=self._warmup_iterations,
            clip_grad=float(cfg.optim.clip_grad or 0),
            global_batch=int(cfg.train.batch_size_per_gpu) * step.world_size,
            crops_not_finite=bad_batch.crops_not_finite(step.images),
            duplicate_share=bad_batch.duplicate_share(step.images),
            distinct_cls=None if self._signs is None else self._signs.distinct_cls,
        )
        return diverged_message(evidence, self._dump(step, own))

    def _dump(self, step: Step, own: Mapping[str, float]) -> str:
        if not self._run.health.dump_bad_batch:
            return "The batch was not kept (health.dump_bad_batch is false)."
        try:
            path = bad_batch.dump(self._run, step, own)
        except Exception as cause:  # a full disk, which torch.save reports in its own ways, must not hide what happened
            return f"The batch could not be kept: {type(cause).__name__}: {cause}"
        return f"This process's batch: {path} (torch.load(path, weights_only=True))"

    @property
    def _precision(self) -> str:
        return str(self._run.cfg.compute_precision.student.backbone.mixed_precision.param_dtype)

    def measure(self, kept: KeptTokens, step: Step, teacher_temp: float) -> None:
        """Measure the signs, show them in upstream's log, and warn."""
        is_centered = self._run.cfg.train.centering == "centering"
        signs = measure(kept, self._model.dino_loss.center if is_centered else None, teacher_temp)
        if signs is None:
            return
        self._signs = signs
        if self._run.metrics is not None:
            for name, value in signs.meters().items():
                show(self._run.metrics, name, value)
            if signs.anchor_gap is None:
                hide(self._run.metrics, "anchor_gap")
        if step.rank == 0:
            _append(Path(self._run.cfg.train.output_dir) / "health.jsonl", step, signs)
            for warning in self._alarms.check(step.iteration, signs):
                logger.warning("dinov2-noise: %s (docs/health.md)", warning)


def _append(path: Path, step: Step, signs: Signs) -> None:
    """One line per measurement."""
    sizes = {"n_tokens": signs.n_tokens, "n_dims": signs.n_dims, "n_prototypes": signs.n_prototypes}
    line = json.dumps({"iteration": step.iteration, "stage": step.stage, **signs.meters(), **sizes})
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def _stop(message: str) -> None:
    """Into the log of this process, and out.

    Raises:
        DivergedError: always.
    """
    logger.error("dinov2-noise: %s", message)
    raise DivergedError(message)
