"""``dinov2.utils.utils``: staged schedules, and weights that must fit.

Replaced: `CosineScheduler` (with a curriculum its values come from `dinov2_noise.curriculum`; without one it is
upstream's) and, for files, `load_pretrained_weights` (upstream loads with ``strict=False``: a checkpoint of another
architecture would leave a random network). It takes all layouts of `dinov2_noise.weights`; addresses stay upstream's.
Read against lines 22-37 and 66-95.
"""

from __future__ import annotations

import logging
from functools import wraps
from typing import Any

from torch import nn

from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.signatures import expect_signature
from dinov2_noise.weights import load_backbone, read

logger = logging.getLogger("dinov2")


def attach(module: Any) -> None:
    _stage_schedules(module)
    _check_weights(module)


def _stage_schedules(module: Any) -> None:
    expect_signature(
        module.CosineScheduler,
        "__init__",
        lambda self, base_value, final_value, total_iters, warmup_iters=0, start_warmup_value=0, freeze_iters=0: None,
    )

    class CosineScheduler(module.CosineScheduler):  # type: ignore[misc]
        """Upstream's schedule; staged when the run has a curriculum."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            run = runtime.current()
            if run is not None:
                self.schedule = run.next_schedule(options)
                self.total_iters = len(self.schedule)

    module.CosineScheduler = CosineScheduler


def _check_weights(module: Any) -> None:
    original = expect_signature(
        module, "load_pretrained_weights", lambda model, pretrained_weights, checkpoint_key: None
    )

    @wraps(original)
    def load_pretrained_weights(model: nn.Module, pretrained_weights: str, checkpoint_key: str | None) -> None:
        if "://" in str(pretrained_weights):
            original(model, pretrained_weights, checkpoint_key)
            return
        weights = read(pretrained_weights, network=checkpoint_key or "teacher")
        logger.info("dinov2-noise: %s", load_backbone(model, weights, required_percent=100).table())

    module.load_pretrained_weights = load_pretrained_weights
