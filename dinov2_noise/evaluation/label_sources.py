"""Where labelled images come from: class folders, a label file, or a dataset string."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise import data
from dinov2_noise.data.label_file import LABEL_FILE_SUFFIXES, read_label_file, shortened, sorted_classes
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.errors import DatasetStringError, MetadataError, MissingFolderError
from dinov2_noise.files import list_images

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Labelled images.

    Attributes:
        name: as the user gave it.
        root: what ``paths`` are relative to; the seeds of noise come from them.
        paths: with ``/`` between folders. labels: of each image, as text.
        dataset: the dataset string it was given as; None for folders and label files.
    """

    name: str
    root: Path
    paths: Sequence[str]
    labels: Sequence[str]
    dataset: str | None = None

    @property
    def classes(self) -> list[str]:
        """The different labels, in order."""
        return sorted_classes(self.labels)

    def identity(self) -> dict[str, Any]:
        """Number of images and hash of their paths and labels."""
        rows = "".join(f"{path}\0{label}\0" for path, label in zip(self.paths, self.labels, strict=True))
        digest = hashlib.sha256(rows.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return {"n_images": len(self.paths), "hash": digest, "dataset": self.dataset}


@dataclass(frozen=True)
class LabelSet:
    """Images of one role.

    Attributes:
        dataset: dataset string, to which noise may be added; empty before it is written. rows: (n,) which of its
            images, ascending.
        targets: (n,) class indices. paths: of each image, see `Source`.
        source: what they come from.
    """

    dataset: str
    rows: Indices
    targets: Indices
    paths: Sequence[str]
    source: Source

    def __len__(self) -> int:
        return len(self.rows)


def read_source(text: str, root: Path | None = None) -> Source:
    """Read what ``--train`` and ``--val`` take.

    Args:
        text: a folder of class folders, a label file, or a dataset string.
        root: what the paths of a label file are relative to; by default its folder.

    Raises:
        MissingFolderError: there is nothing, or no image.
        MetadataError: images have no label, do not exist, or stand there twice.
        DatasetStringError: a dataset string is wrong.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return _of_folder(text, path)
    if path.is_file() or (":" not in text and path.suffix.lower() in LABEL_FILE_SUFFIXES):
        return _of_label_file(text, path, path.parent if root is None else root)
    if ":" not in text:
        raise MissingFolderError(
            f"{text} does not exist: give a folder of class folders, a label file (CSV with the columns path,label) or "
            "a dataset string such as ImageNet:split=TRAIN:root=R"
        )
    return _of_dataset(text)


def _of_folder(text: str, folder: Path) -> Source:
    # Paths begin with the folder's own name: those of train/ and val/ side by side differ, and so does their noise,
    # which is that of `ImageNet:…:root=PARENT` and of `add-noise PARENT`.
    folder = Path(os.path.abspath(folder))
    names = list_images(folder, what="folder of class folders")
    loose = [name for name in names if "/" not in name]
    if loose:
        raise MetadataError(
            f"{len(loose)} of {len(names)} images of {folder} have no label, they lie in no class folder:"
            f"{shortened(loose)}\nThe label is the first folder: move them into one, or give a label file (CSV)."
        )
    return Source(
        name=text,
        root=folder.parent,
        paths=[f"{folder.name}/{name}" for name in names],
        labels=[name.partition("/")[0] for name in names],
    )


def _of_label_file(text: str, path: Path, root: Path) -> Source:
    found = read_label_file(path, root)
    if not root.is_dir():
        raise MissingFolderError(f"root {root} of the label file {path} is no folder: check --root")
    missing = [name for name in found.paths if find_twin(root, name) is None]
    if missing:
        raise MetadataError(
            f"{len(missing)} of {len(found.paths)} images of {path} do not exist below {root}:{shortened(missing)}\n"
            "Its paths are relative to its own folder, or to --root."
        )
    return Source(text, Path(os.path.abspath(root)), found.paths, found.labels)


def _of_dataset(text: str) -> Source:
    spec = data.parse_dataset_string(text)
    if spec.denoised is not None:
        raise DatasetStringError(
            f"denoised= in {text!r}: pairs are for training. To evaluate on denoised images, give their folder as root="
        )
    dataset: Any = data.make(text)
    targets = dataset.get_targets()
    if targets is None:
        raise MetadataError(
            f"the images of {text} have no labels: use ImageNet:split=…, ImageFolder:root=…:labels=folders, or a label "
            "file (CSV)"
        )
    names = [_class_name(dataset, target) for target in range(int(targets.max()) + 1)]
    return Source(
        name=text,
        root=spec.root,
        paths=[dataset.relative_path(index) for index in range(len(dataset))],
        labels=[names[int(target)] for target in targets],
        dataset=text,
    )


def _class_name(dataset: Any, target: int) -> str:
    """The id of a class; its number where the data set does not name it."""
    try:
        return str(dataset.find_class_id(target))
    except (AttributeError, IndexError):
        return str(target)
