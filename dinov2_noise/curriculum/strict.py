"""From a plain mapping to a dataclass, strictly: every mistake is an error that names the full key.

OmegaConf's own structured merge is not used for this: below a list it reports keys without their index (``epochs``
instead of ``curriculum.stages[1].epochs``), and version 2.3 cannot merge into nested frozen dataclasses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dinov2_noise.errors import ConfigError

T = TypeVar("T")

_SCALARS: dict[type, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def build_strict(kind: type[T], node: object, key: str) -> T:
    """An instance of the dataclass ``kind`` from ``node``.

    Args:
        kind: a dataclass whose fields are ``int``, ``float``, ``str``, ``bool``, dataclasses, lists or tuples of these,
            or one of them ``| None``, or a union that a mapping, a list and a scalar tell apart.
        node: plain mappings, sequences and scalars, as read from YAML.
        key: where ``node`` stands in the config, for messages.

    Raises:
        ConfigError: unknown or missing key, wrong type, or a number that is not finite.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key} must be a mapping with the keys {_names(kind)}, not {node!r}")
    hints = get_type_hints(kind)
    for name in node:
        if name not in hints:
            raise ConfigError(_unknown(kind, str(name), key))
    for field in fields(kind):  # type: ignore[arg-type]  # T is a dataclass, which cannot be said
        if field.name not in node and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{key}.{field.name} is missing (keys of {key}: {_names(kind)})")
    return kind(**{name: _value(hints[name], value, f"{key}.{name}") for name, value in node.items()})


def plain(section: object, key: str) -> object:
    """What YAML would hold for a section of a config: no OmegaConf, interpolations resolved.

    Raises:
        ConfigError: a value is ``???``, or an interpolation leads nowhere.
    """
    try:
        if isinstance(section, Mapping) and not OmegaConf.is_config(section):
            section = OmegaConf.create(dict(section))
        if not OmegaConf.is_config(section):
            return section
        return OmegaConf.to_container(section, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as cause:
        missing = str(cause.full_key)
        missing = missing if missing.startswith(key) else f"{key}.{missing}"
        raise ConfigError(f"{missing} is ???: set it, here or on the command line") from cause
    except OmegaConfBaseException as cause:
        raise ConfigError(f"{key} cannot be resolved: {cause}") from cause


def choose(value: str, valid: Sequence[str], key: str) -> None:
    """Check that ``value`` is one of ``valid``.

    Raises:
        ConfigError: it is not; the message lists the valid ones and the closest.
    """
    if value not in valid:
        raise ConfigError(f"{key} is {value!r}: {_closest(value, valid)}valid values are {', '.join(valid)}")


def _value(kind: Any, value: object, key: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = _option([option for option in get_args(kind) if option is not NoneType], value)
    if get_origin(kind) in (list, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{key} must be a list, not {value!r}")
        items = [_value(get_args(kind)[0], item, f"{key}[{index}]") for index, item in enumerate(value)]
        return get_origin(kind)(items)
    if isinstance(kind, type) and is_dataclass(kind):
        return build_strict(kind, value, key)
    return _scalar(kind, value, key)


def _option(options: list[Any], value: object) -> Any:
    """The option of a union that a value of this shape can only mean."""
    if isinstance(value, Mapping):
        fitting = [option for option in options if is_dataclass(option)]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        fitting = [option for option in options if get_origin(option) in (list, tuple)]
    else:
        fitting = [option for option in options if option in _SCALARS]
    return (fitting or options)[0]


def _scalar(kind: type, value: object, key: str) -> Any:
    accepted = (int, float) if kind is float else kind
    # bool is a subclass of int, but `epochs: true` is a slip
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{key} must be {_SCALARS[kind]}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} must be finite, not {value!r}")
    return kind(value)


def _names(kind: type) -> str:
    return ", ".join(field.name for field in fields(kind))


def _closest(word: str, valid: Sequence[str]) -> str:
    matches = get_close_matches(word, valid, n=1)
    return f"did you mean {matches[0]!r}? " if matches else ""


def _unknown(kind: type, name: str, key: str) -> str:
    names = [field.name for field in fields(kind)]
    return f"unknown key {key}.{name}: {_closest(name, names)}valid keys of {key} are {', '.join(names)}"
