"""A value that only the plug-in can resolve: a config of ours cannot be used without it."""

from __future__ import annotations

import warnings

from omegaconf import OmegaConf

# Our configs wrap one value that upstream always reads in an interpolation of this name. On a checkout without the
# plug-in OmegaConf then stops with "Unsupported interpolation type run_dinov2-noise_patch_first", instead of plain
# DINOv2 being trained in silence.
GUARD = "run_dinov2-noise_patch_first"
GUARD_LINE = f"scaling_rule: ${{{GUARD}:sqrt_wrt_1024}} # stops on a checkout without the plug-in"


def register_guard() -> None:
    """Let OmegaConf resolve the guard; idempotent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OmegaConf 2.4 renames the function; both names work
        OmegaConf.register_new_resolver(GUARD, lambda value: value, replace=True)
