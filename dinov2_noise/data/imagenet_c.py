"""Folders of corrupted images: ImageNet-C as distributed, in the arrangement of FastDINOv2, or written by ``corrupt``.

Each (corruption, severity) is a folder of its own, a *cell*. Three arrangements are known:

* ``R/fog/3/<class>/….JPEG``, as the official archives unpack, or one folder deeper, ``R/weather/fog/3/…``;
* ``R/fog/3/labels.txt`` and ``R/fog/3/val/<class>/…``, as ``dinov2-noise corrupt`` writes and the scripts of FastDINOv2
  (arXiv 2507.03779) expect.

``ImageNetC:root=R/fog/3[:extra=E[:classes=known]]`` is the dataset of one cell.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.datasets import PairedImages
from dinov2_noise.data.labels import read_labels
from dinov2_noise.data.metadata import decode_path, encode_paths
from dinov2_noise.data.strings import register_dataset
from dinov2_noise.errors import ConfigError, MetadataError, MissingFolderError
from dinov2_noise.files import MANIFEST_NAME, list_images, read_manifest
from dinov2_noise.noise.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, Corruption
from dinov2_noise.noise.folder import LABELS_NAME

_SPLIT = "val"
_GROUPS = ("noise", "blur", "weather", "digital", "extra")


@dataclass(frozen=True)
class StoredCell:
    """The images of one corruption at one severity.

    Attributes:
        corruption: which.
        root: the folder ``<corruption>/<severity>``.
    """

    corruption: Corruption
    root: Path

    def dataset_string(self, extra: Path | None = None) -> str:
        """For upstream's scripts and ours; ``extra``: metadata of the clean images, whose classes and indices hold."""
        return f"ImageNetC:root={self.root}" + ("" if extra is None else f":extra={extra}:classes=known")


def find_cells(
    root: Path, wanted: Sequence[Corruption] | None = None, *, allow_missing: bool = False
) -> list[StoredCell]:
    """The cells below ``root``, in the order of ``wanted``.

    Args:
        root: folder of the corruptions, or of groups (``noise``, ``blur``, …) of corruptions.
        wanted: which cells; by default all that are there.
        allow_missing: leave out what is missing, instead of raising.

    Raises:
        MissingFolderError: ``root`` does not exist or has no cell at all, or wanted ones are missing (all are named),
            or ``corrupt`` has not finished writing; this last one whatever ``allow_missing`` is.
        ConfigError: a cell lies in two folders.
    """
    if not root.is_dir():
        raise MissingFolderError(f"folder of corrupted images {root} does not exist: check the path")
    present = {cell.corruption: cell for cell in _present(root)}
    for folder in {cell.root.parent.parent for cell in present.values()}:
        _check_finished(folder)
    if not present:
        raise MissingFolderError(
            f"{root} holds no corrupted images: expected {root}/fog/3/<class>/…, {root}/weather/fog/3/<class>/… or "
            f"{root}/fog/3/val/<class>/…"
        )
    if wanted is None:
        return list(present.values())
    missing = [corruption.label for corruption in wanted if corruption not in present]
    if missing and not allow_missing:
        raise MissingFolderError(f"{root} lacks {len(missing)} of {len(wanted)} cells: {', '.join(missing)}")
    return [present[corruption] for corruption in wanted if corruption in present]


def _present(root: Path) -> Iterator[StoredCell]:
    groups = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in CORRUPTIONS + EXTRA_CORRUPTIONS:
        for severity in SEVERITIES:
            corruption = Corruption(name, severity)
            cells = [cell for folder in (root, *groups) if _has_folders(cell := folder / corruption.label)]
            if len({cell.resolve() for cell in cells}) > 1:
                raise ConfigError(
                    f"{corruption.label} lies in both {cells[0]} and {cells[1]}: give the one of "
                    f"{cells[0].parent.parent} and {cells[1].parent.parent} that is meant"
                )
            if cells:
                yield StoredCell(corruption, cells[0])


def _has_folders(cell: Path) -> bool:
    return cell.is_dir() and any(entry.is_dir() and not entry.name.startswith(".") for entry in cell.iterdir())


def _check_finished(folder: Path) -> None:
    """Check that ``corrupt``, if it wrote the cells in ``folder``, has finished: a part has another accuracy.

    Raises:
        MissingFolderError: it has not.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return
    manifest = read_manifest(folder)
    if manifest.get("command") == "corrupt" and not manifest.get("complete"):
        raise MissingFolderError(
            f"{folder} is not complete: run the same `dinov2-noise corrupt` (all of its shards) again, it continues"
        )


class CorruptedImageNet(PairedImages):
    """``ImageNetC:root=R/fog/3[:extra=E[:classes=known]]``: class folders below the root or its ``val``; no index.

    A class's index is its place in the list of classes: that of the metadata in ``extra`` (a folder written by
    ``dinov2-noise index`` for the training set, or one with its ``labels.txt``), else the sorted names of the class
    folders. Only the first is sure to agree with a training set of other classes than these; it is asked for where the
    root's own ``labels.txt`` lists other classes than there are folders. With ``classes=known`` folders of classes that
    ``extra`` does not have are passed over: ImageNet-100's part of ImageNet-C.
    """

    def _open(self) -> None:
        split = self.spec.root / _SPLIT
        self._prefix = f"{_SPLIT}/" if split.is_dir() else ""
        base = self.spec.root / self._prefix
        _check_finished(self.spec.root.parent.parent)
        folders = sorted(path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not folders:
            raise MissingFolderError(
                f"{base} holds no class folders: expected {base}/<class>/<image> (for images without classes use "
                f"ImageFolder:root={self.spec.root})"
            )
        _check_is_cell(base, folders)
        classes, source = self._classes(folders)
        index_of = {class_id: index for index, class_id in enumerate(classes)}
        folders = self._known(folders, index_of, source)
        paths: list[str] = []
        targets: list[int] = []
        for folder in folders:
            names = list_images(base / folder, what="class folder")
            paths += [f"{self._prefix}{folder}/{name}" for name in names]
            targets += [index_of[folder]] * len(names)
        self._paths, self._targets = encode_paths(paths), np.array(targets, dtype=np.uint32)

    def _known(self, folders: Sequence[str], classes: Container[str], source: str) -> list[str]:
        """The class folders that are read."""
        known = [folder for folder in folders if folder in classes]
        unknown = [folder for folder in folders if folder not in classes]
        if unknown and not (known and self.spec.known_classes_only):
            way_out = ", or classes=known to read the others only" if known else ""
            raise MetadataError(
                f"{len(unknown)} of {len(folders)} class folders in {self.spec.root} are no classes of {source}, the "
                f"first is {unknown[0]}: give extra= of the training set that belongs to these images{way_out}"
            )
        return known

    def _classes(self, folders: Sequence[str]) -> tuple[list[str], str]:
        """Class ids by index, and where they come from."""
        extra = self.spec.extra
        if extra is None:
            labels = self.spec.root / LABELS_NAME
            if labels.is_file() and {*read_labels(labels)} != {*folders}:
                raise MetadataError(
                    f"{labels} lists {len(read_labels(labels))} classes, and there are {len(folders)} class folders: "
                    "the numbers of the classes are not certain; give extra= of the training set"
                )
            return list(folders), "the folders"
        for name in ("class-ids-TRAIN.npy", "class-ids-VAL.npy"):
            if (extra / name).is_file():
                return _load_ids(extra / name), str(extra / name)
        if (extra / LABELS_NAME).is_file():
            return sorted(read_labels(extra / LABELS_NAME)), str(extra / LABELS_NAME)
        raise MetadataError(
            f"extra={extra} has neither class-ids-TRAIN.npy nor class-ids-VAL.npy nor {LABELS_NAME}: give the metadata "
            "folder of the clean images (written by `dinov2-noise index`)"
        )

    def __len__(self) -> int:
        return len(self._paths)

    def get_target(self, index: int) -> int:
        return int(self._targets[index])

    def get_targets(self) -> NDArray[np.uint32]:
        """(n,) class indices of all images."""
        return self._targets

    def relative_path(self, index: int) -> str:
        return self._listed_path(index)

    def _listed_path(self, index: int) -> str:
        return decode_path(self._paths[index])


def _check_is_cell(root: Path, folders: Sequence[str]) -> None:
    """Check that class folders are none: corruptions and severities would be taken for classes.

    Raises:
        MissingFolderError: ``root`` is a folder of cells.
    """
    names = CORRUPTIONS + EXTRA_CORRUPTIONS
    levels = {str(severity) for severity in SEVERITIES}
    is_corruption = root.name in names and {*folders} <= levels
    has_corruptions = any((root / name / level).is_dir() for name in names if name in folders for level in levels)
    has_groups = any((root / group / name).is_dir() for group in _GROUPS if group in folders for name in names)
    if is_corruption or has_corruptions or has_groups:
        raise MissingFolderError(
            f"{root} holds corruptions, not classes: give one corruption and severity, such as root=…/fog/3"
        )


def _load_ids(path: Path) -> list[str]:
    try:
        return [str(class_id) for class_id in np.load(path, allow_pickle=False)]
    except (OSError, ValueError, EOFError, TypeError) as cause:
        raise MetadataError(
            f"cannot read metadata {path} ({cause}): write it again with `dinov2-noise index`"
        ) from cause


register_dataset("ImageNetC", CorruptedImageNet, keys=("root", "extra", "classes"))
