"""When a sign says collapse: thresholds, and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from dinov2_noise.health.signs import Signs

IN_A_ROW = 3
"""Measurements that must agree: single batches can be odd."""

_FEWEST_FOR_RANK = 4
"""Tokens or dimensions below which a rank of 2 says nothing: it cannot exceed their number."""

_TRY = {
    "feature_std": "lower the learning rate, raise dino.koleo_loss_weight, and check that the images differ",
    "rankme": "lower the learning rate, raise dino.koleo_loss_weight or the batch size",
    "distinct_cls": "look for duplicates among the images; with few images per process use a larger batch",
    "prototype_entropy": "train with centering=sinkhorn_knopp, a lower learning rate, or a higher teacher_temp",
    "assignment_entropy": "lower teacher.teacher_temp, shorten optim.freeze_last_layer_epochs, raise the learning rate "
    "if the loss never left ln(number of prototypes)",
}


@dataclass
class Alarms:
    """Turns measurements into warnings: once per sign, after `IN_A_ROW` bad ones in a row, and never during warm-up.

    A fresh network looks collapsed: its CLS tokens differ little between images until the learning rate has warmed up.

    Attributes:
        quiet_before: first iteration that may warn; the end of the learning rate's first warm-up.
    """

    quiet_before: int
    _streak: dict[str, int] = field(default_factory=dict, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def check(self, iteration: int, signs: Signs) -> list[str]:
        """The warnings due with this measurement."""
        bad = dict(_findings(signs)) if iteration >= self.quiet_before else {}
        self._streak = {name: self._streak.get(name, 0) + 1 for name in bad}
        due = [name for name in bad if self._streak[name] >= IN_A_ROW and name not in self._told]
        self._told.update(due)
        return [f"sign of collapse at iteration {iteration}: {bad[name]}. To try: {_TRY[name]}" for name in due]


def _findings(signs: Signs) -> Iterator[tuple[str, str]]:
    """Signs past their threshold, with the value and what it would be in health.

    Thresholds: a tenth of the spread of even directions; rank and number of prototypes below 2, the least that tells
    two images apart; half of the images without a token of their own; 99 % of the entropy of knowing nothing.
    """
    even = 1 / math.sqrt(signs.n_dims)
    if signs.feature_std < 0.1 * even:
        yield "feature_std", f"feature_std is {signs.feature_std:.2g}, evenly spread tokens have {even:.2g}"
    if signs.rankme < 2 and min(signs.n_tokens, signs.n_dims) >= _FEWEST_FOR_RANK:
        yield "rankme", f"rankme is {signs.rankme:.2f} of at most {min(signs.n_tokens, signs.n_dims)}"
    if signs.distinct_cls < 0.5:
        yield "distinct_cls", f"only {signs.distinct_cls:.0%} of the images have a CLS token of their own"
    used = signs.n_prototypes**signs.prototype_entropy
    if used < 2:
        yield "prototype_entropy", f"the teacher uses {used:.1f} of {signs.n_prototypes} prototypes"
    if signs.assignment_entropy > 0.99:
        yield (
            "assignment_entropy",
            f"the teacher's assignments are uniform ({signs.assignment_entropy:.2%} of ln {signs.n_prototypes})",
        )
