"""Two classifiers on the same images: the difference of their accuracies, with what pairing gains in certainty."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from dinov2_noise.errors import CheckpointError, MissingFolderError
from dinov2_noise.evaluation.records import Z_95

_COLUMNS = ("path", "label", "predicted")


@dataclass(frozen=True)
class Paired:
    """Counts of images that both, only the first, only the second, and neither told right."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n_images(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of the first and of the second."""
        return (self.both + self.only_first) / self.n_images, (self.both + self.only_second) / self.n_images

    @property
    def difference(self) -> float:
        """Accuracy of the second minus that of the first."""
        return (self.only_second - self.only_first) / self.n_images

    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference over images: Wald's with half an image added to each of the four counts.

        A. Agresti and Y. Min, Simple improved confidence intervals for comparing matched proportions, Statistics in
        Medicine 24 (2005).
        """
        n, gained, lost = self.n_images + 2, self.only_second + 0.5, self.only_first + 0.5
        half = Z_95 * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
        middle = (gained - lost) / n
        return max(-1.0, middle - half), min(1.0, middle + half)

    def p_value(self) -> float:
        """Of McNemar's exact test: whether the images that only one told right fall evenly on both."""
        n = self.only_first + self.only_second
        return float(binomtest(self.only_first, n).pvalue) if n else 1.0


def compare_predictions(first: Path, second: Path) -> Paired:
    """From two files of predictions.

    Raises:
        MissingFolderError: one is not there.
        CheckpointError: one cannot be read, or they are of other images or labels.
    """
    known, told = _read(first), _read(second)
    if {path: label for path, (label, _) in known.items()} != {path: label for path, (label, _) in told.items()}:
        raise CheckpointError(
            f"{first} ({len(known)} images) and {second} ({len(told)}) are not of the same images with the same "
            "labels: evaluate both on one set"
        )
    counts = dict.fromkeys(((a, b) for a in (True, False) for b in (True, False)), 0)
    for path, (label, predicted) in known.items():
        counts[label == predicted, label == told[path][1]] += 1
    return Paired(counts[True, True], counts[True, False], counts[False, True], counts[False, False])


def _read(path: Path) -> dict[str, tuple[str, str]]:
    """Label and prediction by path."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise CheckpointError(f"{path} holds no predictions: its columns must be {', '.join(_COLUMNS)}")
            found = {row["path"]: (row["label"], row["predicted"]) for row in reader}
    except FileNotFoundError as cause:
        raise MissingFolderError(f"no predictions {path}: run `dinov2-noise evaluate linear` or `knn`") from cause
    except (OSError, csv.Error) as cause:
        raise CheckpointError(f"cannot read the predictions {path}: {cause}") from cause
    if not found:
        raise CheckpointError(f"{path} holds no predictions")
    return found


def shared_predictions(first: Path, second: Path) -> list[str]:
    """Relative paths of the predictions that both output folders have, such as ``linear/predictions/clean.csv``.

    Raises:
        MissingFolderError: a folder does not exist, or there is none in both.
    """
    for folder in (first, second):
        if not folder.is_dir():
            raise MissingFolderError(f"{folder} does not exist: give an output folder of `evaluate linear` or `knn`")
    names = [path.relative_to(first).as_posix() for path in sorted(first.glob("*/predictions/*.csv"))]
    shared = [name for name in names if (second / name).is_file()]
    if not shared:
        raise MissingFolderError(
            f"{first} and {second} have no predictions of the same probe and noise: run `dinov2-noise evaluate linear` "
            "or `knn` with the same --noise for both"
        )
    return shared
