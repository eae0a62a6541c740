"""Where images to be embedded come from: files, folders, dataset strings, one after the other."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise import data
from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, load_pixels, to_float32
from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError
from dinov2_noise.export.preprocessing import Preprocessing
from dinov2_noise.files import is_image_name, list_images
from dinov2_noise.noise import DEFAULT_SEED, NoiseModel, noisy_float64, noisy_uint8

Picture = Image.Image | NDArray[Any]


class Source(Protocol):
    """Some images; picklable."""

    def __len__(self) -> int: ...

    def path(self, index: int, /) -> str:
        """What the table calls the image."""
        ...

    def label(self, index: int, /) -> str | None:
        """The id of its class, where it has one."""
        ...

    def image(self, index: int, /) -> Picture:
        """8-bit pixels, or floats in [0, 1].

        Raises:
            ImageError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Options:
    """How files are read; dataset strings say it themselves.

    Attributes:
        values: which values are black and white. full_depth: images of more than 8 bits keep them.
        noise, seed: added on the fly; of a folder the noise is that of ``add-noise`` on this folder.
    """

    values: ValueRange = DTYPE_RANGE
    full_depth: bool = False
    noise: NoiseModel | None = None
    seed: int = DEFAULT_SEED


@dataclass(frozen=True)
class Files:
    """Files below ``root``, by their paths relative to it, from which the seeds of their noise come."""

    root: Path
    names: Sequence[str]
    options: Options

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        return str(self.root / self.names[index])

    def label(self, index: int) -> str | None:
        return None

    def image(self, index: int) -> Picture:
        name, options = self.names[index], self.options
        pixels = load_pixels(self.root / name, options.values)
        if options.noise is None:
            return pixels
        add = noisy_float64 if options.full_depth else noisy_uint8
        noisy = add(pixels, options.noise, relative_path=name, base_seed=options.seed)
        return to_float32(noisy) if options.full_depth else noisy


class Described:
    """The images of a dataset string."""

    def __init__(self, text: str) -> None:
        self._dataset: Any = data.make(text)
        self._root = data.parse_dataset_string(text).root

    def __len__(self) -> int:
        return len(self._dataset)

    def path(self, index: int) -> str:
        return str(self._root / self._dataset.relative_path(index))

    def label(self, index: int) -> str | None:
        target = self._dataset.get_target(index)
        return None if target is None else str(self._dataset.find_class_id(target))

    def image(self, index: int) -> Picture:
        found: Picture = self._dataset.noisy_pixels(index) if self._dataset.full_depth else self._dataset.noisy(index)
        return found


@dataclass(frozen=True)
class Failed:
    """An image that could not be read; raised in a worker it would end the others."""

    error: ImageError


@dataclass(frozen=True)
class Images:
    """All sources in order; ``images[i]`` is (3, S, S) float32, or why it could not be made."""

    sources: Sequence[Source]
    preprocessing: Preprocessing
    _ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", list(itertools.accumulate(len(source) for source in self.sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def _place(self, index: int) -> tuple[Source, int]:
        number = bisect_right(self._ends, index)
        return self.sources[number], index - (self._ends[number - 1] if number else 0)

    def path(self, index: int) -> str:
        source, inner = self._place(index)
        return source.path(inner)

    def label(self, index: int) -> str | None:
        source, inner = self._place(index)
        return source.label(inner)

    @property
    def has_labels(self) -> bool:
        """Whether images of some source have a class."""
        return any(source.label(0) is not None for source in self.sources)

    def __getitem__(self, index: int) -> NDArray[np.float32] | Failed:
        source, inner = self._place(index)
        try:
            # An array, as many tensors on their way from workers would need as many open files.
            return np.asarray(self.preprocessing(source.image(inner)).numpy())
        except ImageError as error:
            cause = error.cause if str(error.path) == "array" else error
            return Failed(ImageError(source.path(inner), cause) if cause is not error else error)


def is_dataset_string(text: str) -> bool:
    """Whether it begins with the name of a dataset and ``:``."""
    name, colon, _ = text.partition(":")
    return bool(colon) and name in data.DATASETS and not Path(text).exists()


def open_images(inputs: Sequence[str], preprocessing: Preprocessing, options: Options) -> Images:
    """The images of files, folders and dataset strings; neighbouring files of one folder make one source.

    Raises:
        MissingFolderError: a path does not exist, or a folder holds no images.
        ConfigError: there is no input, or noise is to be added to a dataset string, which says so itself.
        DinoNoiseError: what else can be wrong with a dataset string.
    """
    if not inputs:
        raise ConfigError("no images: give files, folders or dataset strings")
    sources: list[Source] = []
    for folder, texts in itertools.groupby(inputs, _folder_of_file):
        if folder is not None:
            sources.append(Files(folder, [_checked(Path(text)).name for text in texts], options))
            continue
        sources += [_source(text, options) for text in texts]
    # What was read by its own range lies in [0, 1].
    return Images(sources, Preprocessing(preprocessing.size_px, DTYPE_RANGE, options.full_depth))


def _folder_of_file(text: str) -> Path | None:
    return None if is_dataset_string(text) or Path(text).is_dir() else Path(text).parent


def _checked(path: Path) -> Path:
    if not path.is_file():
        name, colon, _ = str(path).partition(":")
        known = f"; dataset strings begin with {', '.join(sorted(data.DATASETS))}" if colon and name.isalnum() else ""
        raise MissingFolderError(f"image {path} does not exist: check the path{known}")
    if not is_image_name(path.name):
        raise MissingFolderError(f"{path} is not an image by its name: give images, folders or dataset strings")
    return path


def _source(text: str, options: Options) -> Source:
    if not is_dataset_string(text):
        root = Path(text)
        return Files(root, list_images(root), options)
    if options.noise is not None:
        raise ConfigError(f"--noise and the dataset string {text!r}: write noise={options.noise.name} in the string")
    return Described(text)
