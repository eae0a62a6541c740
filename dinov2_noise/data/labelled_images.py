"""``LabelledImages:…``: the images of a label file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.datasets import PairedImages
from dinov2_noise.data.label_file import read_label_file
from dinov2_noise.data.metadata import decode_path, encode_paths
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.data.strings import register_dataset
from dinov2_noise.errors import MetadataError


class LabelledImages(PairedImages):
    """``LabelledImages:root=…:list=labels.csv``: images with the labels of a CSV file, see `data.label_file`.

    Whether the images are there shows when they are read; where one does not exist, one of the same stem is read, so
    that the labels of a clean folder serve its noisy copies.
    """

    def _open(self) -> None:
        assert self.spec.list_file is not None  # a required key
        found = read_label_file(self.spec.list_file, self.spec.root)
        self._paths = encode_paths(found.paths)
        self._targets = np.array(found.targets, np.uint32)
        self._classes = list(found.classes)

    def __len__(self) -> int:
        return len(self._paths)

    def get_target(self, index: int) -> int:
        return int(self._targets[index])

    def get_targets(self) -> NDArray[np.uint32]:
        """(n,) class indices of all images."""
        return self._targets

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self._classes)

    def find_class_id(self, class_index: int) -> str:
        """The label of a class."""
        return self._classes[class_index]

    find_class_name = find_class_id

    def relative_path(self, index: int) -> str:
        listed = self._listed_path(index)
        found = find_twin(self.spec.root, listed)
        if found is None:
            raise MetadataError(
                f"{self.spec.root / listed}, image {index} of {self.spec.list_file}, does not exist under any image "
                "suffix: check the label file and the root, which its paths are relative to"
            )
        return found

    def _listed_path(self, index: int) -> str:
        return decode_path(self._paths[index])

    def missing(self) -> list[str]:
        """Paths of the label file that are not below the root, under any image suffix."""
        return [path for path in self._listed_paths() if find_twin(self.spec.root, path) is None]


def labelled_images_string(root: Path, label_file: Path) -> str:
    """The dataset string of a label file.

    Raises:
        MetadataError: a path holds ``:``, which no dataset string can.
    """
    for path in (root, label_file):
        if ":" in str(path):
            raise MetadataError(f"{path} holds ':', which separates the parts of a dataset string: rename the folder")
    return f"LabelledImages:root={root}:list={label_file}"


register_dataset(
    "LabelledImages",
    LabelledImages,
    keys=("root", "list", "denoised", "noise", "corruption", "range", "depth"),
    required=("root", "list"),
)
