"""Count the optimizer steps that a gradient scaler leaves out."""

from __future__ import annotations

from typing import Any

import torch


class SkippedSteps:
    """Counts steps of `torch.amp.GradScaler` without an `Optimizer.step`, on the host alone.

    The scaler steps the optimizer only if all gradients are finite; a hook on the optimizer hears whether it did.

    Attributes:
        total: steps left out so far. in_a_row: those since the last that was taken.
    """

    def __init__(self) -> None:
        self.total = 0
        self.in_a_row = 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._stepped = False

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """A training step begins; from the first on, ``optimizer`` is listened to."""
        if optimizer is not self._optimizer:
            optimizer.register_step_post_hook(self._hear)
            self._optimizer = optimizer
        self._stepped = False

    def end(self) -> int:
        """The scaler is done with the step; returns ``in_a_row``."""
        if self._optimizer is not None:
            self.in_a_row = 0 if self._stepped else self.in_a_row + 1
            self.total += not self._stepped
        return self.in_a_row

    def _hear(self, *_: Any) -> None:
        self._stepped = True
