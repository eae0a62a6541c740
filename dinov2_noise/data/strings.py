"""Dataset strings: ``ImageNet:split=TRAIN:root=R:extra=E:denoised=D:noise=gauss255,seed=42`` → a dataset.

For evaluation, ``corruption=fog/3[,seed=42][,size=224]`` may stand in the place of ``denoised=``. How the values of
``noise``, ``corruption``, ``range`` and ``subset`` are written is in `dinov2_noise.data.options`.

All names of datasets are in :data:`DATASETS`; :func:`register_dataset` adds one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from dinov2_noise.data.options import Subset, optional_path, spec_options
from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.errors import DatasetStringError, MissingFolderError
from dinov2_noise.noise import DEFAULT_SEED, NoiseModel
from dinov2_noise.noise.corruptions import STANDARD_SIZE_PX, Corruption

SPLITS = ("TRAIN", "VAL", "TEST")
USUAL_KEYS = ("split", "root", "extra", "denoised", "noise", "corruption")
KEYS = (*USUAL_KEYS, "classes", "range", "depth", "subset", "labels", "list")

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class DatasetSpec:
    """A parsed dataset string.

    Attributes:
        name: key of :data:`DATASETS`.
        root: folder of the (noisy, or clean) images.
        split: one of :data:`SPLITS`, or None where the dataset has no splits.
        extra: folder of the metadata; None means the default, ``<root>-extra``.
        denoised: root of the denoised twins, for paired views.
        noise: added on the fly to the images of ``root``.
        noise_seed: base seed of that noise.
        noise_mode: ``fixed``, one realisation per image for ever, or ``fresh``, a new one each epoch.
        corruption: applied on the fly, after the noise.
        corruption_seed: base seed of that corruption.
        corruption_size: side in pixels of ImageNet-C's centre crop, which is made before corrupting (see
            `standard_crop`); None leaves the image its size.
        known_classes_only: leave out images of classes that the metadata in ``extra`` do not have (``classes=known``).
        values: which stored values are black and white, where files have more than 8 bits.
        full_depth: samples have the files' full depth, not 8 bits (``depth=full``).
        subset: the part of the images that is used; None means all.
        class_folders: images have the class of their first folder below ``root`` (``labels=folders``).
        list_file: text file of the images below ``root``, in the place of a listing.
    """

    name: str
    root: Path
    split: str | None = None
    extra: Path | None = None
    denoised: Path | None = None
    noise: NoiseModel | None = None
    noise_seed: int = DEFAULT_SEED
    corruption: Corruption | None = None
    corruption_seed: int = DEFAULT_SEED
    corruption_size: int | None = STANDARD_SIZE_PX
    known_classes_only: bool = False
    noise_mode: str = "fixed"
    values: ValueRange = DTYPE_RANGE
    full_depth: bool = False
    subset: Subset | None = None
    class_folders: bool = False
    list_file: Path | None = None

    def chosen_by(self) -> dict[str, str]:
        """SHA-256 of the files that choose the images, ``subset_sha256`` and ``list_sha256``: their paths do not tell
        what is in them.

        Raises:
            MissingFolderError: there is no such file.
        """
        files = {"subset": self.subset.file if self.subset else None, "list": self.list_file}
        return {f"{key}_sha256": _sha256(path) for key, path in files.items() if path is not None}


DatasetFactory = Callable[[DatasetSpec, Transform | None, Transform | None], Dataset[Any]]


class DatasetKind(NamedTuple):
    """A dataset that strings can name: how it is made, and which keys its strings may and must have."""

    factory: DatasetFactory
    keys: Sequence[str]
    required: Sequence[str]


DATASETS: dict[str, DatasetKind] = {}


def register_dataset(
    name: str, factory: DatasetFactory, *, keys: Sequence[str] = USUAL_KEYS, required: Sequence[str] = ("root",)
) -> None:
    """Let dataset strings begin with ``name``; a second registration replaces the first.

    Args:
        name: without ``:``.
        factory: called with (spec, transform, target_transform).
        keys: those of :data:`KEYS` that a string may have.
        required: those it must have; ``root`` is always among them.

    Raises:
        DatasetStringError: ``name`` or ``keys`` could never occur in a string.
    """
    unknown = sorted({*keys, *required} - {*KEYS})
    if not name or ":" in name or unknown:
        raise DatasetStringError(
            f"cannot register dataset {name!r} with keys {', '.join(keys)}: the name must be without ':' and the keys "
            f"among {', '.join(KEYS)}"
        )
    DATASETS[name] = DatasetKind(factory, tuple(keys), tuple(dict.fromkeys(["root", *required])))


def parse_dataset_string(text: str) -> DatasetSpec:
    """Parse ``NAME:key=value:key=value…``; a value may hold ``=`` but no ``:``.

    Raises:
        DatasetStringError: the name, a key, the split or an option is unknown, or a key is missing or given twice, or
            ``denoised`` or ``depth`` and ``corruption`` are both given.
        NoiseNameError: the value of ``noise`` is no noise, or that of ``corruption`` no corruption.
    """
    name, *tokens = text.split(":")
    kind = DATASETS.get(name)
    if kind is None:
        raise DatasetStringError(f"unknown dataset {name!r} in {text!r}: valid are {', '.join(sorted(DATASETS))}")
    values = _parse_tokens(text, tokens, kind)
    missing = [key for key in kind.required if key not in values]
    if missing:
        needed = ":".join(f"{key}=…" for key in kind.required)
        raise DatasetStringError(f"{' and '.join(missing)} missing in {text!r}: it needs at least {name}:{needed}")
    if "split" in values and values["split"] not in SPLITS:
        raise DatasetStringError(f"unknown split {values['split']!r} in {text!r}: valid are {', '.join(SPLITS)}")
    if "denoised" in values and "corruption" in values:
        raise DatasetStringError(
            f"denoised= and corruption= in {text!r}: pairs are for training, corruptions for evaluation; take one out"
        )
    if "depth" in values and "corruption" in values:
        raise DatasetStringError(
            f"depth=full and corruption= in {text!r}: the corruptions are made for 8-bit pictures; take one out"
        )
    return DatasetSpec(
        name=name,
        root=Path(values["root"]).expanduser(),
        split=values.get("split"),
        extra=optional_path(values, "extra"),
        denoised=optional_path(values, "denoised"),
        list_file=optional_path(values, "list"),
        **spec_options(text, values),
    )


def make(
    text: str,
    transform: Transform | None = None,
    target_transform: Transform | None = None,
    *,
    knows_epoch: bool = False,
) -> Dataset[Any]:
    """The dataset that ``text`` describes.

    Args:
        text: the dataset string.
        transform, target_transform: of its samples.
        knows_epoch: whether it will be read through the draws of the curriculum's sampler; without them there is no
            fresh noise.

    Raises:
        DinoNoiseError: ``text`` cannot be parsed (see :func:`parse_dataset_string`), folders, metadata or denoised
            twins are missing, or fresh noise is asked for where nothing tells the epoch.
    """
    spec = parse_dataset_string(text)
    if not knows_epoch:
        refuse_fresh(spec)
    return DATASETS[spec.name].factory(spec, transform, target_transform)


def refuse_fresh(spec: DatasetSpec) -> None:
    """Check that the noise is the same each time an image is read.

    Raises:
        DatasetStringError: it is not.
    """
    if spec.noise is not None and spec.noise_mode == "fresh":
        raise DatasetStringError(
            f"noise={spec.noise.name},mode=fresh on {spec.root}: fresh noise needs the epoch, which only training with "
            "a curriculum section tells. Evaluations, the denoiser and training without curriculum take mode=fixed: "
            "real noise does not change from epoch to epoch, and denoised twins belong to the fixed realisation"
        )


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise MissingFolderError(f"file {path} does not exist: check the path")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parse_tokens(text: str, tokens: Sequence[str], kind: DatasetKind) -> dict[str, str]:
    values: dict[str, str] = {}
    valid = ", ".join(kind.keys)
    for token in tokens:
        key, equals, value = token.partition("=")
        if not equals or not value:
            raise DatasetStringError(
                f"{token!r} in {text!r} is not key=value (a path cannot hold ':'): valid keys are {valid}"
            )
        if key not in kind.keys:
            raise DatasetStringError(f"unknown key {key!r} in {text!r}: valid keys are {valid}")
        if key in values:
            raise DatasetStringError(f"key {key!r} stands twice in {text!r}: give each of {valid} at most once")
        values[key] = value
    return values
