"""The images a run was trained on, noisy, clean and denoised where they are there, for pictures and floors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dinov2_noise.data import PairedImages, make, parse_dataset_string
from dinov2_noise.data.pairs import find_stem, stem_of
from dinov2_noise.data.strings import DATASETS, DatasetSpec
from dinov2_noise.decoding import load_rgb
from dinov2_noise.errors import DatasetStringError, DinoNoiseError, MissingFolderError
from dinov2_noise.evaluation.runs import located
from dinov2_noise.files import MANIFEST_NAME, read_manifest
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.report.runs import Run

USUAL_NOISE = "gauss100"


@dataclass(frozen=True)
class Choice:
    """What the command line says of images for pictures.

    Attributes:
        images: a folder of clean images to show in the place of the run's. clean: root of the clean originals of the
            run's noisy images. noise: to add to clean images, in the place of the run's.
    """

    images: Path | None = None
    clean: Path | None = None
    noise: str | None = None


@dataclass(frozen=True)
class Images:
    """Images by number, each in up to three forms.

    Attributes:
        label: what they are, in words. dataset: as the run has it, or of ``--images``.
        clean_root: of the originals, under the same names; None where they are not known.
        noise: added to the originals here; None where noisy images are stored, or made by the dataset.
        is_validation: not those of the training.
    """

    label: str
    dataset: PairedImages
    clean_root: Path | None
    noise: str | None
    is_validation: bool

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.relative_path(index)

    @property
    def form(self) -> str:
        """What `noisy` gives: ``noisy``, ``denoised`` where the files are so, or ``as stored`` where nothing tells."""
        if self.noise is not None or self.dataset.spec.noise is not None:
            return "noisy"
        stored = _stored(self.dataset.spec.root)
        return "denoised" if stored.is_denoised else ("noisy" if stored.noise else "as stored")

    def noisy(self, index: int) -> Image.Image:
        """As the run sees it, or with the noise that was asked for."""
        if self.noise is None:
            return self.dataset.noisy(index, 0 if self.dataset.wants_epoch else None)
        clean = self.clean(index)
        assert clean is not None
        pixels = noisy_uint8(np.asarray(clean), parse(self.noise), relative_path=self.name(index))
        return Image.fromarray(pixels)

    def clean(self, index: int) -> Image.Image | None:
        """The original; None where there is none."""
        if self.clean_root is None:
            return None
        found = find_stem(self.clean_root, stem_of(self.name(index)))
        return None if found is None else load_rgb(self.clean_root / found, self.dataset.spec.values)

    def denoised(self, index: int) -> Image.Image | None:
        """The twin; None where there is none."""
        return None if self.dataset.spec.denoised is None else self.dataset.denoised(index)

    def original(self, index: int) -> tuple[str, Image.Image] | None:
        """(``clean``, the original) or (``denoised``, the twin); None without either."""
        clean = self.clean(index)
        if clean is not None:
            return "clean", clean
        denoised = self.denoised(index)
        return None if denoised is None else ("denoised", denoised)

    @cached_property
    def has_labels(self) -> bool:
        return len(self) > 0 and self.dataset.get_target(0) is not None

    def class_name(self, index: int) -> str:
        """In words; empty without labels."""
        target = self.dataset.get_target(index)
        finder = getattr(self.dataset, "find_class_name", None)
        if target is None:
            return ""
        return str(target) if finder is None else str(finder(target))

    def spread(self, count: int) -> list[int]:
        """``count`` numbers evenly over all images, or all of them."""
        total = len(self)
        return [int((place + 0.5) * total / count) for place in range(count)] if count < total else list(range(total))

    @property
    def noise_label(self) -> str:
        """The name of the noise, where it is known."""
        return self.noise or noise_of(self.dataset) or "of unknown noise"


def noise_of(dataset: PairedImages) -> str | None:
    """The noise that a dataset adds, or that its folder was made with."""
    return noise_in(dataset.spec)


def noise_in(spec: DatasetSpec) -> str | None:
    """The same of a parsed dataset string, whether or not its images are there."""
    return spec.noise.name if spec.noise is not None else _stored(spec.root).noise


class _Stored(NamedTuple):
    """What a folder's manifest tells: the noise in its files, their originals, and whether it was taken out again."""

    noise: str | None = None
    clean: Path | None = None
    is_denoised: bool = False


def _stored(root: Path) -> _Stored:
    try:
        parameters = read_manifest(root).get("parameters") if (root / MANIFEST_NAME).is_file() else None
    except DinoNoiseError:
        parameters = None
    if not isinstance(parameters, Mapping):
        return _Stored()
    made = parameters.get("source_parameters")
    if isinstance(made, Mapping) and isinstance(made.get("noise"), str):
        return _Stored(f"{made['noise']}-denoised", _folder_of(made), is_denoised=True)
    noise = parameters.get("noise")
    return _Stored(noise, _folder_of(parameters)) if isinstance(noise, str) else _Stored()


def _folder_of(parameters: Mapping[str, Any]) -> Path | None:
    source = parameters.get("source")
    return Path(source) if isinstance(source, str) and Path(source).is_dir() else None


def training_string(run: Run) -> str:
    """The dataset string of a run's training.

    Raises:
        DatasetStringError: its config has none, or names a data set of upstream's own.
    """
    text = run.get("train.dataset_path")
    if not isinstance(text, str) or not text:
        raise DatasetStringError(f"{run.config_file} names no train.dataset_path")
    if text.split(":")[0] not in DATASETS:
        raise DatasetStringError(f"{run.config_file} names a data set of DINOv2's own, {text!r}")
    return located(text, run.folder)


def validation_string(text: str) -> str | None:
    """Of the validation images beside the training images of ``text``; None where there are none."""
    spec = parse_dataset_string(text)
    if spec.split == "TRAIN":
        return text.replace(":split=TRAIN", ":split=VAL") if (spec.root / "val").is_dir() else None
    if spec.split is None and spec.root.name == "train" and (spec.root.parent / "val").is_dir() and not spec.list_file:
        return _replaced_root(text, spec.root.parent / "val")
    return None


def _replaced_root(text: str, root: Path) -> str:
    kept = [part for part in text.split(":") if not part.startswith(("root=", "denoised="))]
    return ":".join([*kept, f"root={root}"])


def open_images(run: Run, choice: Choice) -> Images:
    """The validation images of a run, or its training images where there are no others, or those asked for.

    Raises:
        DinoNoiseError: they are not there, or what was asked for cannot be had.
    """
    if choice.images is not None:
        noise = choice.noise or _trained_noise(run) or USUAL_NOISE
        parse(noise)
        return Images(f"{choice.images} with {noise}", _folder(choice.images), choice.images, noise, is_validation=True)
    text = training_string(run)
    validation = validation_string(text)
    try:
        dataset, is_validation = opened(validation or text), validation is not None
    except DinoNoiseError:
        if validation is None:
            raise
        dataset, is_validation = opened(text), False
    clean = _clean_root(dataset, choice.clean)
    if choice.noise is not None:
        parse(choice.noise)
        if clean is None and noise_of(dataset) is None:
            clean = dataset.spec.root  # nothing tells of noise in it: taken for clean
        if clean is None:
            raise MissingFolderError(
                f"--noise {choice.noise} needs clean images, and {dataset.spec.root} holds noisy ones: add --clean "
                "with the folder they were made from, or --images"
            )
    which = "validation" if is_validation else "training"
    label = f"{which} images of {dataset.spec.root}"
    return Images(label, dataset, clean, choice.noise, is_validation)


def _trained_noise(run: Run) -> str | None:
    try:
        return noise_of(opened(training_string(run)))
    except DinoNoiseError:
        return None


def opened(text: str) -> PairedImages:
    """The data set of a string, checked to hold images.

    Raises:
        DinoNoiseError: it is not there.
    """
    dataset = make(text, None, None, knows_epoch=True)
    if not isinstance(dataset, PairedImages):
        raise DatasetStringError(f"{text!r} is no data set of images that can be shown")
    return dataset


def _folder(folder: Path) -> PairedImages:
    text = f"ImageFolder:root={folder}"
    try:
        return opened(f"{text}:labels=folders")
    except DinoNoiseError:
        return opened(text)


def _clean_root(dataset: PairedImages, given: Path | None) -> Path | None:
    """The folder given, or the one below the dataset's noise, or the one its noisy images were made from."""
    if given is not None:
        if not given.is_dir():
            raise MissingFolderError(f"--clean {given} is no folder: give the root of the clean images")
        return given
    if dataset.spec.noise is not None:
        return dataset.spec.root
    return _stored(dataset.spec.root).clean


def without_noise(text: str) -> str:
    """The dataset string of the same images without on-the-fly noise."""
    return ":".join(part for part in text.split(":") if not part.startswith("noise="))
