"""The values of a dataset string's keys: ``noise=gauss255,seed=7``, ``corruption=fog/3``, ``range=…``, ``subset=…``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import ConfigError, DatasetStringError
from dinov2_noise.noise import DEFAULT_SEED, parse
from dinov2_noise.noise.corruptions import STANDARD_SIZE_PX, parse_corruption

NOISE_MODES = ("fixed", "fresh")


@dataclass(frozen=True)
class Subset:
    """Part of a data set: those that a file names, or a fraction of every class. One of the two is given.

    Attributes:
        file: text file of class ids or of images' relative paths, see `dinov2_noise.data.subset`.
        fraction: of the images of every class, in (0, 1].
        seed: chooses among such parts.
    """

    file: Path | None = None
    fraction: float | None = None
    seed: int = DEFAULT_SEED


def spec_options(text: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a `DatasetSpec` that have a grammar of their own, from the keys that were given.

    Raises:
        DatasetStringError: a value is not of its key's form.
        NoiseNameError: the value of ``noise`` is no noise, or that of ``corruption`` no corruption.
    """
    for key, only in (("classes", "known"), ("labels", "folders"), ("depth", "full")):
        if values.get(key, only) != only:
            raise DatasetStringError(f"{key}={values[key]} in {text!r}: the only value is {only}")
    found: dict[str, Any] = {"known_classes_only": "classes" in values, "class_folders": "labels" in values}
    found["full_depth"] = "depth" in values
    parsers = {"noise": _noise, "corruption": _corruption, "range": _range, "subset": _subset}
    for key, parser in parsers.items():
        if key in values:
            found |= parser(text, values[key])
    return found


def _noise(text: str, value: str) -> dict[str, Any]:
    if value == "none":
        return {}
    name, *options = value.split(",")
    given = _given(options, ("seed", "mode"))
    seed, mode = given.get("seed", str(DEFAULT_SEED)), given.get("mode", "fixed")
    if len(given) < len(options) or not _is_integer(seed) or mode not in NOISE_MODES:
        raise DatasetStringError(
            f"noise={value} in {text!r}: write noise=NAME,seed=INTEGER,mode=fixed (or mode=fresh; seed and mode only "
            "where wanted), or noise=none"
        )
    return {"noise": parse(name), "noise_seed": int(seed), "noise_mode": mode}


def _corruption(text: str, value: str) -> dict[str, Any]:
    label, *options = value.split(",")
    given = _given(options, ("seed", "size"))
    seed, size = given.get("seed", str(DEFAULT_SEED)), given.get("size", str(STANDARD_SIZE_PX))
    is_size = size == "full" or (size.isascii() and size.isdigit() and int(size) > 0)
    if len(given) < len(options) or not _is_integer(seed) or not is_size:
        raise DatasetStringError(
            f"corruption={value} in {text!r}: write corruption=NAME/SEVERITY, then, where wanted, ,seed=INTEGER and "
            ",size=PIXELS or ,size=full"
        )
    return {
        "corruption": parse_corruption(label),
        "corruption_seed": int(seed),
        "corruption_size": None if size == "full" else int(size),
    }


def _range(text: str, value: str) -> dict[str, Any]:
    try:
        values = parse_range(value)
    except ConfigError as cause:
        raise DatasetStringError(f"range={value} in {text!r}: {cause}") from cause
    return {"values": values}


def _subset(text: str, value: str) -> dict[str, Any]:
    """A number is a fraction, all else a file; ``./0.1`` is a file of that name."""
    number, comma, option = value.partition(",")
    if not _is_number(number):
        return {"subset": Subset(file=Path(value).expanduser())}
    given = _given([option], ("seed",)) if comma else {"seed": str(DEFAULT_SEED)}
    if not _is_integer(given.get("seed", "")):
        raise DatasetStringError(f"subset={value} in {text!r}: write subset=FRACTION,seed=INTEGER or subset=FILE")
    if not 0 < float(number) <= 1:
        raise DatasetStringError(
            f"subset={value} in {text!r}: a fraction lies above 0 and is at most 1 (a file of that name is ./{value})"
        )
    return {"subset": Subset(fraction=float(number), seed=int(given["seed"]))}


def _given(options: Sequence[str], valid: Sequence[str]) -> dict[str, str]:
    """Fewer than there are options where one is unknown or stands twice."""
    found = dict(option.partition("=")[::2] for option in options)
    return {key: value for key, value in found.items() if key in valid}


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def optional_path(values: Mapping[str, str], key: str) -> Path | None:
    """The path given for ``key``, if any."""
    return Path(values[key]).expanduser() if key in values else None
