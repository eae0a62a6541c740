"""Command-line options for single stages: upstream's merge of config and options cannot reach into a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dinov2_noise.errors import ConfigError

_OF_A_STAGE = re.compile(r"curriculum\.stages(\.|\[)-?\d")


def split_options(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """``key=value`` options → (those for upstream's merge, those of single stages)."""
    ours = [option for option in options if _OF_A_STAGE.match(option)]
    return [option for option in options if option not in ours], ours


def apply_options(cfg: Any, options: Sequence[str]) -> None:
    """Set ``curriculum.stages.1.anchor.weight=2`` and the like in ``cfg``; stages count from 0.

    Raises:
        ConfigError: there is no such stage, or the option is no ``key=value``.
    """
    for option in options:
        key, equals, _ = option.partition("=")
        if not equals:
            raise ConfigError(f"option {option!r} is not of the form key=value")
        value = OmegaConf.from_dotlist([f"value={option[len(key) + 1 :]}"]).value
        try:
            OmegaConf.update(cfg, key, value, merge=True)
        except (OmegaConfBaseException, IndexError, TypeError) as cause:
            n_stages = len(OmegaConf.select(cfg, "curriculum.stages") or [])
            raise ConfigError(
                f"option {option!r} does not fit this config of {n_stages} stages, counted from 0: {cause}"
            ) from cause


def require_values(cfg: Any) -> None:
    """Every ``???`` of a config must have been replaced.

    Raises:
        ConfigError: one was not; names its key and how to give it.
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):
        option = re.sub(r"\[(\d+)\]", r".\1", str(key))
        raise ConfigError(f"{key} has no value, this config leaves it to you: add {option}=… to the command")
