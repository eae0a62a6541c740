"""Where a run's saved config differs from DINOv2's own default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise.errors import ConfigError
from dinov2_noise.upstream.utils.strict import OUR_SECTIONS

ABSENT = "–"
"""What stands for a key that one of the two does not have."""


def differences(config_file: Path) -> Mapping[str, tuple[str, str]]:
    """Full key → (DINOv2's value, the run's value), both as text; our own sections stay out.

    Interpolations are shown as they are written. A key that DINOv2's default does not have is listed, with `ABSENT` as
    its default: it comes from another version, or from a plug-in.

    Raises:
        ConfigError: the file cannot be read.
    """
    from dinov2.configs import dinov2_default_config

    try:
        own: Any = OmegaConf.to_container(OmegaConf.load(config_file))
    except (OSError, YAMLError, OmegaConfBaseException) as cause:
        raise ConfigError(f"cannot read the config {config_file}: {' '.join(str(cause).split())}") from cause
    theirs = flat(OmegaConf.to_container(dinov2_default_config))
    ours = {key: value for key, value in flat(own).items() if key.split(".")[0] not in OUR_SECTIONS}
    keys = [*ours, *(key for key in theirs if key not in ours)]
    both = {key: (theirs.get(key, ABSENT), ours.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def flat(node: Any, key: str = "") -> dict[str, str]:
    """``{a: {b: 1}}`` → ``{"a.b": "1"}``; lists are values."""
    if not isinstance(node, dict):
        return {key: "" if node is None else str(node)}
    found: dict[str, str] = {}
    for name, value in node.items():
        found |= flat(value, f"{key}.{name}" if key else str(name))
    return found
