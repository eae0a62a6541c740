"""Told when training fails: a KoLeo loss that stays finite, signs of collapse, skipped steps, likely causes.

Torch alone; `dinov2_noise.upstream.train.watched` attaches these to a run.
"""

from dinov2_noise.health.alarms import Alarms
from dinov2_noise.health.causes import Evidence, diverged_message, skipped_message
from dinov2_noise.health.koleo import KoLeo
from dinov2_noise.health.losses import CheckedLosses
from dinov2_noise.health.signs import (
    PrototypeEntropy,
    Signs,
    anchor_gap,
    distinct_share,
    feature_std,
    prototype_entropy,
    rank_me,
)
from dinov2_noise.health.skipped import SkippedSteps

__all__ = [
    "Alarms",
    "CheckedLosses",
    "Evidence",
    "KoLeo",
    "PrototypeEntropy",
    "Signs",
    "SkippedSteps",
    "anchor_gap",
    "distinct_share",
    "diverged_message",
    "feature_std",
    "prototype_entropy",
    "rank_me",
    "skipped_message",
]
