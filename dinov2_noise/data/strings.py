"""Dataset strings: ``ImageNet:split=TRAIN:root=R:extra=E:denoised=D:noise=gauss255,seed=42`` → a dataset.

For evaluation, ``corruption=fog/3[,seed=42][,size=224]`` may stand in the place of ``denoised=``.

All names of datasets are in :data:`DATASETS`; :func:`register_dataset` adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from dinov2_noise.errors import DatasetStringError
from dinov2_noise.noise import DEFAULT_SEED, NoiseModel, parse
from dinov2_noise.noise.corruptions import STANDARD_SIZE_PX, Corruption, parse_corruption

SPLITS = ("TRAIN", "VAL", "TEST")
USUAL_KEYS = ("split", "root", "extra", "denoised", "noise", "corruption")
KEYS = (*USUAL_KEYS, "classes")

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
        corruption: applied on the fly, after the noise.
        corruption_seed: base seed of that corruption.
        corruption_size: side in pixels of ImageNet-C's centre crop, which is made before corrupting (see
            `standard_crop`); None leaves the image its size.
        known_classes_only: leave out images of classes that the metadata in ``extra`` do not have (``classes=known``).
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
            ``denoised`` and ``corruption`` are both given.
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
    if values.get("classes", "known") != "known":
        raise DatasetStringError(f"classes={values['classes']} in {text!r}: the only value is known")
    noise, seed = _parse_noise(text, values.get("noise"))
    return DatasetSpec(
        name=name,
        root=Path(values["root"]).expanduser(),
        split=values.get("split"),
        extra=_optional_path(values, "extra"),
        denoised=_optional_path(values, "denoised"),
        noise=noise,
        noise_seed=seed,
        known_classes_only="classes" in values,
        **_parse_corruption(text, values.get("corruption")),
    )


def make(text: str, transform: Transform | None = None, target_transform: Transform | None = None) -> Dataset[Any]:
    """The dataset that ``text`` describes.

    Raises:
        DinoNoiseError: ``text`` cannot be parsed (see :func:`parse_dataset_string`), or folders, metadata or denoised
            twins are missing.
    """
    spec = parse_dataset_string(text)
    return DATASETS[spec.name].factory(spec, transform, target_transform)


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


def _parse_noise(text: str, value: str | None) -> tuple[NoiseModel | None, int]:
    if value is None:
        return None, DEFAULT_SEED
    name, comma, option = value.partition(",")
    if not comma:
        return parse(name), DEFAULT_SEED
    key, _, seed = option.partition("=")
    if key != "seed" or not _is_integer(seed):
        raise DatasetStringError(f"noise={value} in {text!r}: write noise=NAME or noise=NAME,seed=INTEGER")
    return parse(name), int(seed)


def _parse_corruption(text: str, value: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    label, *options = value.split(",")
    given = dict(option.partition("=")[::2] for option in options)
    seed, size = given.get("seed", str(DEFAULT_SEED)), given.get("size", str(STANDARD_SIZE_PX))
    is_size = size == "full" or (size.isascii() and size.isdigit() and int(size) > 0)
    if len(given) < len(options) or not {*given} <= {"seed", "size"} or not _is_integer(seed) or not is_size:
        raise DatasetStringError(
            f"corruption={value} in {text!r}: write corruption=NAME/SEVERITY, then, where wanted, ,seed=INTEGER and "
            ",size=PIXELS or ,size=full"
        )
    return {
        "corruption": parse_corruption(label),
        "corruption_seed": int(seed),
        "corruption_size": None if size == "full" else int(size),
    }


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _optional_path(values: Mapping[str, str], key: str) -> Path | None:
    return Path(values[key]).expanduser() if key in values else None
