"""Runs of one arm: the same training but for its seed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dinov2_noise.report.runs import Run

_APART = ("seed", "output_dir")
"""Keys of ``train`` in which the seeds of an arm differ."""


def with_arms(runs: Sequence[Run]) -> list[Run]:
    """Each run with its arm: its name without the seed, ``nct-seed2`` → ``nct``.

    Only where at least two runs have that name and nothing but the seed tells their configs apart; all others are arms
    of their own.
    """
    stems = {run.name: _stem(run) for run in runs}
    alike: dict[str, list[str]] = {}
    for run in runs:
        alike.setdefault(stems[run.name], []).append(_but_for_the_seed(run))
    found = []
    for run in runs:
        kinds = alike[stems[run.name]]
        is_one_of_several = len(kinds) > 1 and len(set(kinds)) == 1
        found.append(replace(run, arm=stems[run.name] if is_one_of_several else run.name))
    return found


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Arms in order of first appearance."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.arm, []).append(run)
    return found


def arm_names(runs: Sequence[Run], most: int = 8) -> str:
    """``nc (3 runs), noisy and 2 more``."""
    arms = by_arm(runs)
    shown = [name + (f" ({len(own)} runs)" if len(own) > 1 else "") for name, own in list(arms.items())[:most]]
    return ", ".join(shown) + (f" and {len(arms) - most} more" if len(arms) > most else "")


def _stem(run: Run) -> str:
    """The name without the run's own seed at the end of it, or of the name of a folder above."""
    seed = run.get("train.seed")
    if not isinstance(seed, int):
        return run.name
    cut = re.sub(rf"(?<![A-Za-z0-9])(?:seed|s)?[-_]?{seed}(?=$|/)", "", run.name, flags=re.IGNORECASE)
    return "/".join(filter(None, (part.strip("-_. ") for part in cut.split("/")))) or run.name


def _but_for_the_seed(run: Run) -> str:
    train = run.get("train")
    kept: Mapping[str, Any] = {**run.config}
    if isinstance(train, Mapping):
        kept = {**kept, "train": {key: value for key, value in train.items() if key not in _APART}}
    return json.dumps(kept, sort_keys=True, default=str)
