"""The images under check: a folder or a dataset string, opened once per process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from dinov2_noise.data import DATASETS, DatasetSpec, PairedImages, parse_dataset_string
from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.errors import ConfigError, DatasetStringError, MissingFolderError


@dataclass(frozen=True)
class CheckedSet:
    """What is checked.

    Attributes:
        label: as the user gave it.
        spec: how to open it; without ``denoised``, for missing twins shall be counted, not end the check.
        denoised: root of the twins that the dataset string names.
        is_folder: given as a folder, not as a dataset string.
    """

    label: str
    spec: DatasetSpec
    denoised: Path | None
    is_folder: bool

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_sharded(self) -> bool:
        """The images lie in tar shards: no list of files names them."""
        return self.spec.name == "WebDataset"

    @property
    def images(self) -> PairedImages:
        """The dataset; the same object each time within a process."""
        return images_of(self.spec)


def open_set(data: str | Path, values: ValueRange | None = None) -> CheckedSet:
    """Open a folder, or a dataset string where there is no such path.

    Args:
        data: the folder or the string.
        values: which stored values are black and white; only for a folder, since a string has its own ``range=``.

    Raises:
        MissingFolderError: neither, or there are no images.
        ConfigError: ``values`` beside a dataset string.
        DatasetStringError, MetadataError, NoiseNameError: the string, or the metadata it needs, are wrong.
    """
    images_of.cache_clear()  # files may have come or gone since an earlier check in this process
    text, folder = str(data), Path(data)
    if folder.is_file():
        raise MissingFolderError(
            f"{text} is a file: give the folder it lies in, or the list in a dataset string, "
            f"ImageFolder:root=FOLDER:list={text}"
        )
    if not folder.exists() and ":" in text:
        if values is not None:
            raise ConfigError(f"--range beside a dataset string: write range={values.token} into {text!r}")
        spec = parse_dataset_string(text)
        opened = CheckedSet(text, replace(spec, denoised=None), spec.denoised, is_folder=False)
    elif folder.is_dir():
        spec = DatasetSpec("ImageFolder", folder, values=DTYPE_RANGE if values is None else values)
        opened = CheckedSet(text, spec, None, is_folder=True)
    else:
        kinds = ", ".join(f"{name}:root=…" for name in sorted(DATASETS))
        raise MissingFolderError(f"folder {text} does not exist, and it is no dataset string ({kinds}): check the path")
    if opened.is_folder:
        _require_images(opened)
    if len(opened) == 0:
        raise MissingFolderError(f"{text} holds no images: check its split, list and subset")
    return opened


def _require_images(opened: CheckedSet) -> None:
    try:
        len(opened)
    except MissingFolderError as cause:
        shards = next(opened.spec.root.rglob("*.tar"), None)
        if shards is None:
            raise
        raise MissingFolderError(
            f"{cause}. There are tar shards: give them as WebDataset:root={opened.label}"
        ) from cause


def listed_path(images: PairedImages, index: int) -> str:
    """The relative path of an image as it is listed, whether or not the file is there."""
    return images._listed_path(index)


@lru_cache(maxsize=4)
def images_of(spec: DatasetSpec) -> PairedImages:
    """The dataset of ``spec``; worker processes that were forked have it already.

    Raises:
        DatasetStringError: it is of a kind that has no images by number.
    """
    dataset = DATASETS[spec.name].factory(spec, None, None)
    if not isinstance(dataset, PairedImages):
        raise DatasetStringError(
            f"{spec.name} is a {type(dataset).__name__}, whose images cannot be checked: derive it from "
            "dinov2_noise.data.PairedImages"
        )
    return dataset
