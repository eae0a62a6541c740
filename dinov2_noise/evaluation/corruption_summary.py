"""From the results of the cells to one record of a model: ``summary.json`` and ``cells.csv``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dinov2_noise.errors import CheckpointError, MissingFolderError
from dinov2_noise.evaluation.corruption_cells import CLEAN, CellResult, split_name
from dinov2_noise.evaluation.corruption_scores import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, Scores, score
from dinov2_noise.evaluation.records import Record
from dinov2_noise.files import atomic_path, write_json

SUMMARY_NAME, TABLE_NAME = "summary.json", "cells.csv"
NORMALISED_BY = (
    "AlexNet on ImageNet-C with the 1,000 classes of ImageNet-1k (Hendrycks and Dietterich 2019, arXiv 1903.12261): "
    f"clean error {ALEXNET_CLEAN_ERROR}"
)
_OTHER_LABELS = "; these are other classes, so mCE compares models with each other here, and not with published figures"


@dataclass(frozen=True)
class Summary:
    """What one model reached on all cells.

    Attributes:
        model: its name, for tables. identity: weights, classifier, images. missing: asked cells that could not be had.
        cells: name → result. classifier: the linear one chosen, or None. n_classes: of the images.
    """

    model: str
    identity: Mapping[str, Any]
    cells: Mapping[str, CellResult]
    n_classes: int
    missing: Sequence[str] = field(default_factory=list)
    classifier: Mapping[str, Any] | None = None
    seed: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """``linear``, ``knn20``, …"""
        return list(next(iter(self.cells.values())).right) if self.cells else []

    @property
    def corruptions(self) -> list[str]:
        """In the order of the cells."""
        return list(dict.fromkeys(found[0] for name in self.cells if (found := split_name(name))))

    @property
    def noises(self) -> list[str]:
        return [name for name in self.cells if name != CLEAN and split_name(name) is None]

    @property
    def normalised_by(self) -> str:
        return NORMALISED_BY + ("" if self.n_classes == 1000 else _OTHER_LABELS)

    def scores(self, kind: str) -> Scores:
        errors = {place: 1 - cell.accuracy(kind) for name, cell in self.cells.items() if (place := split_name(name))}
        clean = self.cells.get(CLEAN)
        return score(errors, None if clean is None else 1 - clean.accuracy(kind))

    def record(self, cell: str, kind: str) -> Record:
        """The accuracy in one cell, with its interval."""
        found = self.cells[cell]
        return Record(
            self.model, f"{kind}_top1", found.accuracy(kind), found.n_images, self.seed, found.dataset, {"cell": cell}
        )

    def save(self, folder: Path) -> None:
        """Write ``summary.json`` and ``cells.csv``."""
        write_json(folder / SUMMARY_NAME, self._content())
        with atomic_path(folder / TABLE_NAME) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(self._rows())

    @classmethod
    def load(cls, folder: Path) -> Summary:
        """Read a folder that `save` has written.

        Raises:
            MissingFolderError: it has no summary, because cells are yet to be measured.
            CheckpointError: it cannot be read.
        """
        path = folder / SUMMARY_NAME
        if not path.is_file():
            raise MissingFolderError(f"no {path}: run `dinov2-noise evaluate corruptions` there to its end")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            own = ("model", "identity", "n_classes", "missing", "classifier", "seed", "details")
            cells = {name: CellResult(**cell["result"]) for name, cell in content["cells"].items()}
            return cls(cells=cells, **{key: content[key] for key in own})
        except (OSError, ValueError, TypeError, KeyError) as cause:
            raise CheckpointError(f"{path} is not a summary of this version ({cause!r}): write it anew") from cause

    def _content(self) -> dict[str, Any]:
        seconds = [(cell.waiting_s, cell.computing_s) for cell in self.cells.values()]
        return {
            "model": self.model,
            "complete": not self.missing,
            "missing": list(self.missing),
            "n_classes": self.n_classes,
            "normalised_by": self.normalised_by,
            "classifier": self.classifier,
            "seed": self.seed,
            "scores": {kind: _of_scores(self.scores(kind)) for kind in self.kinds},
            "seconds": {
                "waiting": round(sum(s[0] for s in seconds), 1),
                "computing": round(sum(s[1] for s in seconds), 1),
            },
            "identity": dict(self.identity),
            "details": dict(self.details),
            "cells": {name: self._of_cell(name) for name in self.cells},
        }

    def _of_cell(self, name: str) -> dict[str, Any]:
        records = {kind: self.record(name, kind) for kind in self.kinds}
        accuracies = {
            kind: {"accuracy": record.value, "interval_95": list(record.interval())} for kind, record in records.items()
        }
        return {**accuracies, "result": asdict(self.cells[name])}

    def _rows(self) -> list[list[Any]]:
        rows: list[list[Any]] = [["cell", "corruption", "severity", "probe", "images", "accuracy", "low", "high"]]
        for name in self.cells:
            corruption, severity = split_name(name) or (name, "")
            for kind in self.kinds:
                record = self.record(name, kind)
                numbers = [f"{value:.6f}" for value in (record.value, *record.interval())]
                rows.append([name, corruption, severity, kind, record.n_images, *numbers])
        return rows


def _of_scores(scores: Scores) -> dict[str, Any]:
    """The scores as JSON, with what each is."""
    mean = scores.mean_error
    return {
        "clean_accuracy": None if scores.clean_error is None else 1 - scores.clean_error,
        "mce_percent": scores.mce,
        "relative_mce_percent": scores.relative_mce,
        "mean_error": mean,
        "mean_accuracy": None if mean is None else 1 - mean,
        "accuracy_at_severity": {str(severity): 1 - error for severity, error in scores.error_at.items()},
        "mean_error_of": dict(scores.error_of),
        "ce_percent_of": dict(scores.ce_of),
        "relative_ce_percent_of": dict(scores.relative_ce_of),
        "corruptions_in_mce": list(ALEXNET_ERROR),
    }
