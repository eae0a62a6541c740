"""The cells of a corruption benchmark: the clean images, our noises, and (corruption, severity) pairs, each with its
dataset string; and the file that keeps what came out of one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dinov2_noise.data import default_extra, make, parse_dataset_string
from dinov2_noise.data.imagenet_c import find_cells
from dinov2_noise.errors import CheckpointError, ConfigError, MissingFolderError
from dinov2_noise.evaluation.counting import labels_of
from dinov2_noise.files import write_json
from dinov2_noise.noise import parse
from dinov2_noise.noise.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    parse_corruption,
    parse_names,
    parse_severities,
)

CLEAN = "clean"


@dataclass(frozen=True)
class Cell:
    """One set of images to score.

    Attributes:
        name: ``clean``, a noise such as ``gauss100``, or ``corruption/severity``. dataset: its dataset string.
        stored: its images are not made from the clean ones, but lie in a folder of their own.
    """

    name: str
    dataset: str
    stored: bool = False

    @property
    def file_name(self) -> str:
        return f"{self.name.replace('/', '-')}.json"


def split_name(name: str) -> tuple[str, int] | None:
    """(corruption, severity) of a cell's name; None for clean images and noises."""
    corruption, slash, severity = name.partition("/")
    return (corruption, int(severity)) if slash else None


@dataclass(frozen=True)
class Grid:
    """Which cells are asked for.

    Attributes:
        corruptions: names of the 15 or of the 4 extra ones. severities: of 1 to 5. noises: such as ``gauss100``.
    """

    corruptions: Sequence[str]
    severities: Sequence[int]
    noises: Sequence[str] = ()

    @classmethod
    def parse(cls, corruptions: str, severities: str, noises: str) -> Grid:
        """From comma-separated lists; ``all``, ``standard``, ``extra`` stand for corruptions, ``none`` for nothing.

        Raises:
            NoiseNameError: an unknown corruption, severity or noise; names the valid ones.
        """
        chosen = () if corruptions == "none" else parse_names(corruptions)
        named = [] if noises == "none" else noises.split(",")
        for name in named:
            parse(name)
        # Always in the same order, so that tables and pictures do not depend on how it was typed.
        ordered = [name for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS) if name in chosen]
        return cls(ordered, sorted(parse_severities(severities)), list(dict.fromkeys(named)))

    def corruption_names(self) -> list[str]:
        """``corruption/severity`` of all asked cells, in order."""
        return [f"{name}/{severity}" for name in self.corruptions for severity in self.severities]


def made_cells(val_dataset: str, grid: Grid, *, seed: int, size: str) -> list[Cell]:
    """Cells whose images are made on the fly from the clean validation images.

    Args:
        val_dataset: dataset string of the validation images.
        size: ``full``, or the side in pixels to which images are cropped before they are corrupted.

    Raises:
        ConfigError: the string has a corruption of its own, or a noise while noises are asked for.
        DatasetStringError: seed or size are none.
    """
    corrupted = [
        Cell(name, f"{val_dataset}:corruption={name},seed={seed},size={size}") for name in grid.corruption_names()
    ]
    others = clean_and_noisy(val_dataset, grid)
    for cell in corrupted[:1]:
        parse_dataset_string(cell.dataset)
    return [*others, *corrupted]


def clean_and_noisy(val_dataset: str, grid: Grid) -> list[Cell]:
    """The cells beside the corruptions: the images as they are, and with our noises.

    Raises:
        ConfigError: as for `made_cells`.
    """
    spec = parse_dataset_string(val_dataset)
    if spec.corruption is not None:
        raise ConfigError(f"--val-dataset {val_dataset!r} has a corruption: give the clean validation images")
    if spec.noise is not None and grid.noises:
        raise ConfigError(f"--val-dataset {val_dataset!r} has a noise already: add --noises none")
    return [Cell(CLEAN, val_dataset), *(Cell(name, f"{val_dataset}:noise={name}") for name in grid.noises)]


@dataclass(frozen=True)
class CellResult:
    """What came out of one cell.

    Attributes:
        cell: its name. dataset: its dataset string. images: see `identity.dataset_identity`.
        right: images told right, per kind of probe.
        waiting_s, computing_s: time without images to compute on, and of features and classifiers.
    """

    cell: str
    dataset: str
    images: Mapping[str, Any]
    n_images: int
    right: Mapping[str, int]
    waiting_s: float
    computing_s: float
    versions: Mapping[str, str]

    def accuracy(self, kind: str) -> float:
        return self.right[kind] / self.n_images

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> CellResult:
        """Read what `save` wrote.

        Raises:
            CheckpointError: it is no result of a cell.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as cause:
            raise CheckpointError(f"{path} is no result of a cell ({cause}): delete it to measure it again") from cause


def stored_cells(
    root: Path, clean_dataset: str, grid: Grid, *, allow_missing: bool = False
) -> tuple[list[Cell], list[str]]:
    """Cells whose images lie in a folder such as ImageNet-C, beside the clean and our noisy ones; and what is missing.

    Class indices are those of the metadata of the clean images. A cell with another number of images of a class than
    the clean set counts as missing: an archive unpacked in part.

    Raises:
        ConfigError: the clean images have noise or corruption of their own, which those of the folder do not have, or
            are a subset, which those of the folder are not.
        MissingFolderError: asked cells are missing, and that is not allowed; lists them.
    """
    spec = parse_dataset_string(clean_dataset)
    if spec.noise is not None:
        raise ConfigError(
            f"--val-dataset {clean_dataset!r} adds a noise, and the images in {root} have none: leave it out"
        )
    if spec.subset is not None:
        raise ConfigError(
            f"--val-dataset {clean_dataset!r} is a part, and {root} holds the whole: let the corruptions be made from "
            "the part (without that folder), or give metadata of the part's classes as extra="
        )
    others = clean_and_noisy(clean_dataset, grid)
    extra = spec.extra or default_extra(spec.root)
    names, wanted = grid.corruption_names(), [parse_corruption(name) for name in grid.corruption_names()]
    found = {cell.corruption.label: cell for cell in find_cells(root, wanted, allow_missing=True)}
    expected, cells, missing = _per_class(clean_dataset), [], []
    for name in names:
        if name not in found:
            missing.append(name)
            continue
        dataset = found[name].dataset_string(extra if extra.is_dir() else None)
        there = _per_class(dataset)
        if there == expected:
            cells.append(Cell(name, dataset, stored=True))
        elif there.total() != expected.total():
            missing.append(f"{name} ({there.total()} of {expected.total()} images)")
        else:
            missing.append(f"{name} (as many images, but not of the same classes)")
    if missing and not allow_missing:
        raise MissingFolderError(
            f"{root} lacks {len(missing)} of {len(names)} cells: {', '.join(missing)}. Complete the folder, ask for "
            "others with --corruptions and --severities, or add --allow-missing (then there may be no mCE)"
        )
    return [*others, *cells], missing


def _per_class(text: str) -> Counter[int]:
    return Counter(labels_of(make(text), text).tolist())
