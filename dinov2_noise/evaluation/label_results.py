"""What a probe on labelled images leaves behind: records, predictions, confusion matrix, figures per class."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dinov2_noise.evaluation.classification import Answers, Figure
from dinov2_noise.evaluation.label_noise import file_name
from dinov2_noise.evaluation.label_task import Task
from dinov2_noise.evaluation.records import Record, versions, wilson
from dinov2_noise.files import atomic_path


@dataclass(frozen=True)
class Outcome:
    """One probe on the validation images with one noise.

    Attributes:
        name: what was asked for, ``clean`` or such as ``gauss100``; for names of files.
        noise: what the images have, also where it is stored in them. dataset: string of the validation images.
        answers: of all validation images, in their order.
        floors: top-1 accuracy of what knows nothing: ``chance``, ``colour`` and, if asked for, ``random`` network.
        details: for the records.
    """

    name: str
    noise: str
    dataset: str
    answers: Answers
    floors: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def snr_db(self) -> float | None:
        """Mean over validation images."""
        value: float | None = self.details.get("snr_db")
        return value


@dataclass(frozen=True)
class ResultFolder:
    """Where the results of one probe go.

    Attributes:
        root: of all probes of these images, with ``records/``. probe: the folder below it for predictions and tables.
            metric: what the names of its records begin with. arm: what was evaluated. seed: of its training.
    """

    root: Path
    probe: str
    metric: str
    arm: str
    seed: int

    def save(self, outcome: Outcome, task: Task, figures: Mapping[str, Figure]) -> None:
        """Write the records and tables of one noise."""
        name = file_name(outcome.name)
        folder = self.root / self.probe
        write_table(folder / "predictions" / f"{name}.csv", predictions(outcome.answers, task))
        write_table(folder / f"confusion-{name}.csv", confusion(outcome.answers, task.classes))
        write_table(folder / f"classes-{name}.csv", per_class(outcome.answers, task.classes))
        for metric, figure in figures.items():
            self.record(outcome, metric, figure).save(self.record_path(metric, outcome.name))

    def record_path(self, metric: str, name: str) -> Path:
        """Of a metric without the probe's name."""
        return self.root / "records" / f"{self.arm}-{self.metric}_{metric}-{file_name(name)}.json"

    def record(self, outcome: Outcome, metric: str, figure: Figure) -> Record:
        """One figure as a record; the floors belong to the top-1 accuracy."""
        details = {"noise": outcome.noise, **outcome.details}
        if metric == "top1":
            details["floors"] = dict(outcome.floors)
        return Record(
            arm=self.arm,
            metric=f"{self.metric}_{metric}",
            value=figure.value,
            n_images=len(outcome.answers.targets),
            seed=self.seed,
            dataset=outcome.dataset,
            details=details,
            versions=versions(),
            interval95=None if figure.is_proportion else figure.interval95,
        )


def predictions(answers: Answers, task: Task) -> Iterable[Sequence[object]]:
    """Rows (path, label, predicted, probability): of k-NN the share of the votes."""
    yield "path", "label", "predicted", "probability"
    shares = answers.scores.max(axis=1) / answers.scores.sum(axis=1)
    for path, target, told, share in zip(task.val.paths, answers.targets, answers.predicted, shares, strict=True):
        yield path, task.classes[target], task.classes[told], f"{share:.4f}"


def confusion(answers: Answers, classes: Sequence[str]) -> Iterable[Sequence[object]]:
    """A row per class, a column per class it was told to be."""
    yield ["label \\ predicted", *classes]
    for name, row in zip(classes, answers.confusion.tolist(), strict=True):
        yield [name, *row]


def per_class(answers: Answers, classes: Sequence[str]) -> Iterable[Sequence[object]]:
    """Rows (label, images, right, accuracy, low, high): accuracy with Wilson's 95 % interval."""
    yield "label", "images", "right", "accuracy", "low", "high"
    for number, name in enumerate(classes):
        total, right = int(answers.confusion[number].sum()), int(answers.confusion[number, number])
        if not total:
            yield name, 0, 0, "", "", ""
            continue
        yield name, total, right, *(f"{value:.4f}" for value in (right / total, *wilson(right / total, total)))


def write_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, atomically."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


def largest_confusions(answers: Answers, classes: Sequence[str], n: int = 3) -> list[tuple[str, str, int]]:
    """(label, predicted, images) of the most frequent confusions, the most frequent first."""
    wrong = answers.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    places = [divmod(int(place), len(classes)) for place in order]
    names = [printable(name) for name in classes]
    return [(names[row], names[column], int(wrong[row, column])) for row, column in places if wrong[row, column]]


def printable(label: str) -> str:
    """A label for screens and pictures, which take no bytes that are not UTF-8, such as those of older spreadsheets."""
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
