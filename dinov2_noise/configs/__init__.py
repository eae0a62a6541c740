"""Training configs for upstream's ``train.py``, and how they are found and guarded."""

from __future__ import annotations

import warnings
from pathlib import Path

from omegaconf import OmegaConf

from dinov2_noise.errors import ConfigError

FOLDER = Path(__file__).parent

# Shipped configs wrap one value that upstream always reads in an interpolation of this name. On a checkout without
# the plug-in OmegaConf then stops with "Unsupported interpolation type run_dinov2-noise_patch_first", instead of
# plain DINOv2 being trained in silence.
GUARD = "run_dinov2-noise_patch_first"


def register_guard() -> None:
    """Let OmegaConf resolve the guard; idempotent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OmegaConf 2.4 renames the function; both names work
        OmegaConf.register_new_resolver(GUARD, lambda value: value, replace=True)


def shipped() -> dict[str, Path]:
    """Name (``nct``) → path of every shipped training config."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def resolve_config_file(config_file: str) -> str:
    """``dinov2_noise/configs/nct.yaml`` works wherever the package is installed; other paths are returned unchanged.

    Raises:
        ConfigError: the path looks like a shipped config, but there is none of that name.
    """
    path = Path(config_file)
    if path.exists() or path.parts[-3:-1] != ("dinov2_noise", "configs"):
        return config_file
    if path.stem not in shipped():
        raise ConfigError(f"no shipped config {config_file!r}: there are {', '.join(shipped())}")
    return str(shipped()[path.stem])
