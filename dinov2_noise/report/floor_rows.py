"""Floors of the shown images: what needs no network, computed from the images where they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dinov2_noise.data import PairedImages
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.floors import chance, mean_colour_knn
from dinov2_noise.report.images import noise_of, opened, training_string, validation_string
from dinov2_noise.report.runs import Run
from dinov2_noise.report.spread import dataset_label

_MOST_TRAIN, _MOST_VAL = 2000, 500
COLOUR = "mean colour, k-NN"


@dataclass(frozen=True)
class Floors:
    """Of one set of validation images.

    Attributes:
        label: as `spread.dataset_label` tells of it, with the noise the images hold. root: the folder's name.
        values: name → accuracy. counted: how many images, in words.
    """

    label: str
    root: str
    values: dict[str, float]
    counted: str


def floors_of(runs: Sequence[Run]) -> list[Floors]:
    """Of each labelled validation set beside a run's training set; those that cannot be read are left out."""
    found: dict[str, Floors] = {}
    for run in runs:
        try:
            text = training_string(run)
            beside = validation_string(text)
            if beside is None or beside in found:
                continue
            train, val = opened(text), opened(beside)
            floors = _of(train, val, beside)
        except (DinoNoiseError, ValueError):
            continue
        if floors is not None:
            found[beside] = floors
    return list(found.values())


def _of(train: PairedImages, val: PairedImages, text: str) -> Floors | None:
    chosen = [_spread(len(part), most) for part, most in ((train, _MOST_TRAIN), (val, _MOST_VAL))]
    labels = [[part.get_target(i) for i in own] for part, own in zip((train, val), chosen, strict=True)]
    known = [[int(label) for label in own if label is not None] for own in labels]
    if not all(known) or [len(own) for own in known] != [len(own) for own in chosen]:
        return None
    images = [[np.asarray(_seen(part, i)) for i in own] for part, own in zip((train, val), chosen, strict=True)]
    values = {"chance": chance(known[0], known[1]), COLOUR: mean_colour_knn(images[0], known[0], images[1], known[1])}
    noise = noise_of(val)
    label = dataset_label(text)
    label = f"{label}, {noise}" if noise and noise not in label else label
    return Floors(
        label, val.spec.root.name, values, f"{len(chosen[0]):,} training and {len(chosen[1]):,} validation images"
    )


def _seen(part: PairedImages, index: int) -> object:
    return part.noisy(index, 0 if part.wants_epoch else None)


def _spread(total: int, most: int) -> list[int]:
    return list(range(total)) if total <= most else [int((place + 0.5) * total / most) for place in range(most)]


def matching(shown: str, floors: Sequence[Floors]) -> Floors | None:
    """The floors of the images called ``shown``: of this name, or, where free text says the folder's name, of that."""
    exact = [one for one in floors if one.label == shown or one.label.split(", ")[0] == shown.split(", ")[0]]
    named = [one for one in floors if one.root and one.root in shown.replace("_", " ").split()]
    return next(iter([*exact, *named]), None)
