"""Records over seeds: means, two kinds of spread, and which difference is more than both."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import norm, t

from dinov2_noise.data import parse_dataset_string
from dinov2_noise.errors import CheckpointError, DinoNoiseError
from dinov2_noise.evaluation.records import Z_95, Record

SAME = 1e-6
"""Values that differ by no more are one: float32 on upstream's side."""
FLOORS = ("chance", "mean colour", "mean colour, k-NN", "mean-colour", "mean_colour", "colour", "colour-knn")
"""Arms that are no networks: what a network must beat."""

_OF_THE_PROBE = (
    "noise",
    "k",
    "cell",
    "view",
    "split",
    "protocol",
    "classifier_on",
    "geometry",
    "trained_on",
    "train_noise",
    "probed_on",
    "probe",
)
"""Details by which two measurements of one arm, metric and data set may rightly differ."""


class Place(NamedTuple):
    """What may be compared: one metric on one set of images. ``shown``: the set in words."""

    metric: str
    shown: str


@dataclass(frozen=True)
class Group:
    """All seeds of one arm at one place."""

    arm: str
    place: Place
    records: Sequence[Record]

    @property
    def n_seeds(self) -> int:
        return len(self.records)

    @property
    def n_images(self) -> int:
        """Of one evaluation; the fewest."""
        return min(record.n_images for record in self.records)

    @cached_property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(record.value for record in self.records)

    @cached_property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, with n - 1; None for one."""
        return stdev(record.value for record in self.records) if self.n_seeds > 1 else None

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over images: of each seed, averaged. All seeds are measured on the same images, so
        that more seeds do not narrow it.
        """
        both = [record.interval() for record in self.records]
        return fmean(low for low, _ in both), fmean(high for _, high in both)

    @property
    def image_error(self) -> float:
        """Standard error of the mean over images, from the width of the intervals."""
        return (self.interval[1] - self.interval[0]) / (2 * Z_95)

    @property
    def is_floor(self) -> bool:
        return self.arm.lower() in FLOORS


class Difference(NamedTuple):
    """``value`` with its 95 % interval; ``over_seeds``: the spread over trainings is in it."""

    value: float
    low: float
    high: float
    over_seeds: bool

    @property
    def exceeds_uncertainty(self) -> bool:
        return self.low > 0 or self.high < 0


def difference(one: Group, other: Group, *, comparisons: int = 1) -> Difference:
    """``one`` minus ``other``, with an interval from images and, where both have several seeds, trainings.

    half-width² = (z s_images)² + (t s_seeds)², with s_images² = e1² + e2², s_seeds² = d1²/n1 + d2²/n2, and t's degrees
    of freedom after Welch (1947). The arms see the same images, which is not made use of: the interval is too wide
    rather than too narrow. With several ``comparisons`` each is made at 5 % divided by their number (Bonferroni).
    """
    tail = 0.05 / (2 * comparisons)
    value = one.mean - other.mean
    variance = (float(norm.isf(tail)) * math.hypot(one.image_error, other.image_error)) ** 2
    over_seeds = one.deviation is not None and other.deviation is not None
    if over_seeds:
        parts = [(group.deviation or 0.0) ** 2 / group.n_seeds for group in (one, other)]
        freedom = _welch(parts, [one.n_seeds, other.n_seeds])
        variance += float(t.isf(tail, freedom)) ** 2 * sum(parts)
    half = math.sqrt(variance)
    return Difference(value, value - half, value + half, over_seeds)


def _welch(parts: Sequence[float], counts: Sequence[int]) -> float:
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return sum(parts) ** 2 / below if below else float(sum(counts) - 2)


def best(groups: Sequence[Group]) -> tuple[Group, bool] | None:
    """The arm that is better than each other by more than the uncertainty, and whether that holds over trainings.

    Floors do not take part. None where there is no such arm, or only one.
    """
    arms = [group for group in groups if not group.is_floor]
    if len(arms) < 2:
        return None
    first = max(arms, key=lambda group: group.mean)
    found = [difference(first, other, comparisons=len(arms) - 1) for other in arms if other is not first]
    if not all(each.low > 0 for each in found):
        return None
    return first, all(each.over_seeds for each in found)


def groups_of(records: Iterable[tuple[Path, Record]]) -> dict[Place, list[Group]]:
    """By place, in order of first appearance; within it by arm. A measurement that is there twice counts once.

    Raises:
        CheckpointError: two records of one measurement have different values; names both files.
    """
    kept: dict[tuple[str, ...], tuple[Path, Record]] = {}
    for path, record in records:
        key = _identity(record)
        before = kept.setdefault(key, (path, record))
        if abs(before[1].value - record.value) > SAME:
            raise CheckpointError(
                f"{before[0]} and {path} contradict each other: both are {record.metric} of {record.arm}, seed "
                f"{record.seed}, on {record.dataset}, with the values {before[1].value:.6g} and {record.value:.6g}. "
                "Leave one of them out, or, if they are two trainings, give one another arm or seed"
            )
    kinds = dict.fromkeys(_measured(record) for _, record in kept.values())
    places = dict(zip(kinds, _places(list(kinds)), strict=True))
    found: dict[Place, dict[str, list[Record]]] = {}
    for _, record in kept.values():
        found.setdefault(places[_measured(record)], {}).setdefault(record.arm, []).append(record)
    return {
        place: [Group(arm, place, sorted(own, key=lambda record: record.seed)) for arm, own in arms.items()]
        for place, arms in found.items()
    }


class _Measured(NamedTuple):
    """What tells places apart; ``details``: JSON of those that do."""

    metric: str
    dataset: str
    details: str


def _measured(record: Record) -> _Measured:
    details = {name: record.details[name] for name in _OF_THE_PROBE if name in record.details}
    return _Measured(record.metric, record.dataset, json.dumps(details, sort_keys=True))


def _identity(record: Record) -> tuple[str, ...]:
    return (record.arm, str(record.seed), *_measured(record))


def _places(kinds: Sequence[_Measured]) -> list[Place]:
    """A name for each, with the whole data set and all details where the short names of two are alike."""
    short = [Place(kind.metric, _shown(kind)) for kind in kinds]
    return [
        place if short.count(place) == 1 else Place(kind.metric, f"{place.shown} [{kind.dataset} {kind.details}]")
        for place, kind in zip(short, kinds, strict=True)
    ]


def _shown(kind: _Measured) -> str:
    """The images in words, with the noise and the number of neighbours."""
    text, details = dataset_label(kind.dataset), json.loads(kind.details)
    noise = details.get("noise")
    if noise and str(noise) not in text:
        text = f"{text}, {noise}"
    if details.get("train_noise", noise) != noise:
        text = f"{text}, trained on {details['train_noise']}"
    return f"{text}, k = {details['k']}" if "k" in details else text


def dataset_label(dataset: str) -> str:
    """A dataset string in few words: folder, split, and what is done to the images; other text as it is."""
    try:
        spec = parse_dataset_string(dataset)
    except DinoNoiseError:
        return dataset
    parts = [spec.root.name or str(spec.root)]
    if spec.split is not None:
        parts[0] += f" ({spec.split.lower()})"
    if spec.noise is not None:
        parts.append(spec.noise.name)
    if spec.corruption is not None:
        parts.append(spec.corruption.label)
    if spec.subset is not None:
        parts.append("a subset")
    return ", ".join(parts)
