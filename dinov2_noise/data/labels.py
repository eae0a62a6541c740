"""Classes of a labelled folder: which there are, and what they are called."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dinov2_noise.errors import MetadataError
from dinov2_noise.noise.folder import LABELS_NAME


def shared_classes(root: Path, splits: Mapping[str, Sequence[str]]) -> list[str]:
    """Class ids by index: the class folders of TRAIN, or, without it, those of all splits together.

    Args:
        root: the dataset's root, for messages.
        splits: sorted class folders of each split.

    Raises:
        MetadataError: a split has a class that TRAIN lacks.
    """
    if "TRAIN" not in splits:
        return sorted({class_id for folders in splits.values() for class_id in folders})
    known = set(splits["TRAIN"])
    for split, folders in splits.items():
        unknown = [class_id for class_id in folders if class_id not in known]
        if unknown:
            raise MetadataError(
                f"{root / split.lower() / unknown[0]} is a class that {root / 'train'} lacks "
                f"({len(unknown)} such): every class must have training images"
            )
    return list(splits["TRAIN"])


def class_names(root: Path, classes: Iterable[str]) -> dict[str, str]:
    """Names of the classes, from the root's ``labels.txt``; without it their ids.

    Raises:
        MetadataError: a class is missing there, or the file cannot be read.
    """
    path = root / LABELS_NAME
    if not path.is_file():
        return {class_id: class_id for class_id in classes}
    labels = read_labels(path)
    for class_id in classes:
        if class_id not in labels:
            raise MetadataError(f"class folder {class_id} is not in {path}: add a row `{class_id},name`")
    return labels


def read_labels(path: Path) -> dict[str, str]:
    """Class ids and their names from ``labels.txt``, rows ``class_id,name``.

    Raises:
        MetadataError: it cannot be read, or a row has no name.
    """
    labels = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if len(row) == 1:
                    raise MetadataError(f"row {number} of {path} is {row[0]!r}: expected `class_id,name`")
                if row:
                    # A name may hold commas without being quoted.
                    labels[row[0].strip()] = ",".join(row[1:]).strip()
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise MetadataError(f"cannot read {path}: {cause}; expected UTF-8 text with rows `class_id,name`") from cause
    return labels
