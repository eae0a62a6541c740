"""What is learned from which images and tested on which: classes, splits, and what must not be in both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dinov2_noise import data
from dinov2_noise.data.label_file import shortened
from dinov2_noise.errors import ConfigError, MetadataError
from dinov2_noise.evaluation.label_leaks import leaks
from dinov2_noise.evaluation.label_sources import Indices, LabelSet, Source


@dataclass(frozen=True)
class Task:
    """A classification.

    Attributes:
        classes: labels by class index, those of the training images.
        folds: pairs of indices into ``train`` and ``val``: what is fitted on what, and tested on what. Every validation
            image is tested once. One pair, of all images, unless it is a cross-validation, where both are the same set.
        leaked: (validation path, equal training path) of images with the same bytes.
    """

    classes: Sequence[str]
    train: LabelSet
    val: LabelSet
    folds: Sequence[tuple[Indices, Indices]]
    leaked: Sequence[tuple[str, str]] = ()

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def least_fitted(self) -> int:
        """Training images of the smallest fold."""
        return min(len(fit) for fit, _ in self.folds)

    def shared_paths(self) -> bool:
        """Whether different images of both roles have one path, and would get the same noise."""
        if self.train.source is self.val.source or self.train.source.root == self.val.source.root:
            return False
        return not set(self.train.paths).isdisjoint(self.val.paths)

    def written(self, folder: Path) -> Task:
        """The same with dataset strings: for images that were not given as one, label files are written there.

        They are called ``images-train.csv`` and ``images-val.csv``, or ``images.csv`` for a cross-validation.

        Raises:
            WriteError, MetadataError: the folder cannot be written to, or its path stands in no dataset string.
        """
        if self.train is self.val:
            shared = _written(self.train, self.classes, folder / "images.csv")
            return replace(self, train=shared, val=shared)
        return replace(
            self,
            train=_written(self.train, self.classes, folder / "images-train.csv"),
            val=_written(self.val, self.classes, folder / "images-val.csv"),
        )


@dataclass(frozen=True)
class Split:
    """How one set of images is parted where no validation images are given.

    Attributes:
        fraction: of each class, rounded, at least one image, that is tested. folds: of a cross-validation; 0: none.
        seed: of the draw.
    """

    fraction: float = 0.2
    folds: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or self.folds < 0 or self.folds == 1:
            raise ConfigError(
                f"--val-fraction {self.fraction}, --folds {self.folds}: a fraction lies between 0 and 1, and there are "
                "at least 2 folds"
            )


def make_task(train: Source, val: Source | None, split: Split, *, allow_leak: bool = False) -> Task:
    """Classes, targets and folds; sets that were not given as dataset strings have none before `Task.written`.

    Args:
        train: images to learn from.
        val: images to test on; None parts ``train`` by ``split``.
        split: how.
        allow_leak: go on where the same image is in both.

    Raises:
        MetadataError: fewer than two classes, a class has no training image, or an image is in both.
        ConfigError: a class has too few images for ``split``.
    """
    classes = _classes(train, val)
    number_of = {label: number for number, label in enumerate(classes)}

    def targets_of(source: Source) -> Indices:
        return np.array([number_of[label] for label in source.labels], np.int64)

    if val is not None:
        sets = (_everything(train, targets_of(train)), _everything(val, targets_of(val)))
        folds = [(np.arange(len(sets[0])), np.arange(len(sets[1])))]
    elif split.folds:
        whole = _everything(train, targets_of(train))
        sets, folds = (whole, whole), stratified_folds(whole.targets, split.folds, split.seed, train.name)
    else:
        whole = _everything(train, targets_of(train))
        fit, test = held_out(whole.targets, split.fraction, split.seed, train.name)
        sets, folds = (_part(whole, fit), _part(whole, test)), [(np.arange(len(fit)), np.arange(len(test)))]
    leaked = leaks(*sets, folds)
    if leaked and not allow_leak:
        shown = shortened([f"{val_path} = {train_path}" for val_path, train_path in leaked])
        raise MetadataError(
            f"{len(leaked)} of {len(sets[1])} validation images are training images, too (the same bytes):{shown}\n"
            "What was learned by heart counts as told right. Take them out of one side, or use --allow-leak."
        )
    return Task(classes, *sets, folds, leaked)


def held_out(targets: Indices, fraction: float, seed: int, name: str = "the images") -> tuple[Indices, Indices]:
    """Indices (kept, held out), ascending: of each class the fraction, rounded, at least one and never all.

    Raises:
        ConfigError: a class has only one image.
    """
    counts = np.bincount(targets)
    if (counts == 1).any():
        raise ConfigError(
            f"{(counts == 1).sum()} classes of {name} have a single image, which cannot be in both parts: give --val, "
            "or take these classes out"
        )
    chosen = np.zeros(len(targets), bool)
    for members in _shuffled(targets, seed):
        chosen[members[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def stratified_folds(targets: Indices, n: int, seed: int, name: str = "the images") -> list[tuple[Indices, Indices]]:
    """``n`` pairs of indices (fit, test), ascending; the images of each class are dealt out to the folds in turn.

    Raises:
        ConfigError: a class has fewer images than there are folds.
    """
    counts = np.bincount(targets)
    least = int(counts[counts > 0].min())
    if least < n:
        raise ConfigError(
            f"--folds {n}: the smallest class of {name} has {least} images, at least one per fold is needed"
        )
    fold, first = np.empty(len(targets), np.int64), 0
    for members in _shuffled(targets, seed):
        fold[members] = (first + np.arange(len(members))) % n
        first += len(members)  # so that not every class puts its odd ones into the first folds
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(n)]


def _shuffled(targets: Indices, seed: int) -> list[Indices]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.flatnonzero(targets == target)) for target in np.unique(targets)]


def _classes(train: Source, val: Source | None) -> list[str]:
    classes = train.classes
    if len(classes) < 2:
        raise MetadataError(
            f"all images of {train.name} have the label {classes[0]!r}: two classes are needed at least"
        )
    unknown = Counter(label for label in ([] if val is None else val.labels) if label not in set(classes))
    if unknown and val is not None:
        shown = shortened([f"{label} ({count} images)" for label, count in sorted(unknown.items())])
        raise MetadataError(
            f"{len(unknown)} classes of {val.name} have no image in {train.name}, so nothing can tell them:{shown}\n"
            "Take them out, or check that both name their classes alike."
        )
    return classes


def _everything(source: Source, targets: Indices) -> LabelSet:
    return LabelSet(source.dataset or "", np.arange(len(targets)), targets, source.paths, source)


def _part(whole: LabelSet, chosen: Indices) -> LabelSet:
    paths = [whole.paths[index] for index in chosen]
    return LabelSet(whole.dataset, chosen, whole.targets[chosen], paths, whole.source)


def _written(part: LabelSet, classes: Sequence[str], path: Path) -> LabelSet:
    if part.dataset:
        return part
    dataset = data.labelled_images_string(part.source.root, Path(os.path.abspath(path)))
    rows = ((name, classes[target], int(target)) for name, target in zip(part.paths, part.targets, strict=True))
    data.write_label_file(path, rows)
    return replace(part, dataset=dataset, rows=np.arange(len(part)))
