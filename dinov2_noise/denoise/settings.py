"""The settings of ``denoise train`` by name: from a YAML file, and into the one that is kept beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise.decoding import DTYPE_RANGE, parse_range
from dinov2_noise.denoise.images import Source
from dinov2_noise.errors import ConfigError, MissingFolderError
from dinov2_noise.files import atomic_path
from neighbor2neighbor import TrainingConfig

CONFIG_NAME = "config.yaml"
# Names of the command line, beside those of the training's own fields.
_ALIASES = {"crop": "crop_px", "lr": "learning_rate", "images_per_class": "per_class", "values": "range"}


@dataclass(frozen=True)
class TrainSettings(TrainingConfig):
    """Everything a YAML file can set.

    Attributes:
        noisy: the noisy images of the run that wrote the file; a record, for they are given with each command.
        images: how many these were; a record too.
        per_class: train on at most so many images of each class.
        min_side: leave out images with a side below, in px.
        max_side: leave out images with a side above, in px.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: processes that load images.
        sample_every: steps between two pictures.
        validation: folder of noisy images whose PSNR is measured.
        validation_clean: folder of their clean versions.
        range: which values of a folder's images are black and white, such as ``fixed:0,4095``.
        skip_bad: leave out so many images that cannot be read.
    """

    noisy: str | None = None
    images: int | None = None
    per_class: int | None = None
    min_side: int | None = None
    max_side: int | None = None
    device: str = "auto"
    workers: int | None = None
    sample_every: int | None = None
    validation: str | None = None
    validation_clean: str | None = None
    range: str = DTYPE_RANGE.name
    skip_bad: int = 0


_TRAINING = {field.name for field in fields(TrainingConfig)}
_RECORDS = ("noisy", "images")


def read_settings(path: Path) -> dict[str, Any]:
    """What a YAML file sets: fields of `TrainSettings`; ``crop``, ``lr`` and ``images_per_class`` are understood too.

    Raises:
        MissingFolderError: there is no such file.
        ConfigError: it is no YAML mapping, has an unknown key, one key under two names, or a value of a wrong type.
    """
    if not path.is_file():
        raise MissingFolderError(f"config {path} does not exist: check the path")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as cause:
        raise ConfigError(f"config {path} is not YAML: {cause}") from cause
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} must hold lines such as `steps: 3000`, not {content!r}")
    try:
        return by_field({str(key): value for key, value in content.items()})
    except ConfigError as cause:
        raise ConfigError(f"config {path}: {cause}") from cause


def by_field(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` under the names and with the types of `TrainSettings`.

    Raises:
        ConfigError: an unknown key, one key under two names, or a value of a wrong type.
    """
    valid = {field.name for field in fields(TrainSettings)}
    named: dict[str, Any] = {}
    for key, value in settings.items():
        name = _ALIASES.get(key, key)
        if name not in valid:
            raise ConfigError(f"unknown key {key!r}: valid keys are {', '.join(sorted({*valid, *_ALIASES}))}")
        if name in named:
            raise ConfigError(f"{name} is given twice, under two names: leave one out")
        named[name] = value
    try:
        typed = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(TrainSettings), named))
    except OmegaConfBaseException as cause:
        # Of an element of a list, OmegaConf knows neither the key nor the value.
        keys = cause.full_key or ", ".join(name for name, value in named.items() if isinstance(value, (list, tuple)))
        reason = str(cause).splitlines()[0].replace("Value '$VALUE' of type '$VALUE_TYPE'", "one of its values")
        raise ConfigError(f"{keys}: {reason}") from cause
    assert isinstance(typed, dict)
    return {name: typed[name] for name in named}


def merge_settings(path: Path | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a YAML file, if one is given, and over them ``own``, those of the command line.

    Raises:
        MissingFolderError, ConfigError: see `read_settings` and `by_field`.
    """
    settings = {} if path is None else read_settings(path)
    if "epochs" in own and "steps" not in own:
        settings.pop("steps", None)  # they would win
    return {**settings, **by_field(own)}


def as_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `TrainSettings` as the keyword arguments of `train_denoiser`.

    Raises:
        ConfigError: one of the two validation folders is missing, or there is no such range.
    """
    given = dict(settings)
    low, high = given.get("min_side"), given.get("max_side")
    noisy, clean = given.get("validation"), given.get("validation_clean")
    if (noisy is None) != (clean is None):
        raise ConfigError("validation needs both folders: --validation NOISY and --validation-clean CLEAN")
    return {
        "images_per_class": given.get("per_class"),
        "side_range_px": None if low is high is None else (low or 0, high or 1_000_000),
        "device": given.get("device", "auto"),
        "num_workers": given.get("workers"),
        "sample_every": given.get("sample_every"),
        "values": parse_range(given.get("range", DTYPE_RANGE.name)),
        "skip_bad": given.get("skip_bad", 0),
        "validation": None if noisy is None else (Path(noisy), Path(str(clean))),
        **{name: value for name, value in given.items() if name in _TRAINING},
    }


def write_settings(
    path: Path,
    config: TrainingConfig,
    *,
    source: Source,
    images: int,
    images_per_class: int | None,
    side_range_px: tuple[int, int] | None,
) -> None:
    """Write all that decides the result of a run; given back with ``--config``, it makes the same weights again."""
    low, high = side_range_px or (None, None)
    record = {"noisy": source.label, "images": images}
    selection = {"per_class": images_per_class, "min_side": low, "max_side": high}
    own = {name: value for name, value in source.identity().items() if name == "range"}
    with atomic_path(path) as temporary:
        OmegaConf.save(OmegaConf.create({**record, **selection, **own, **asdict(config)}), temporary)
