"""The student backbone that a training config describes, without a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from dinov2_noise.configs import config_file, register_guard


def build_backbone(config: str) -> nn.Module:
    """Upstream's vision transformer with random weights, on the CPU, as its training would build the student's.

    Args:
        config: path of a config, or the name of one of ours.

    Raises:
        ConfigError: it is neither.
    """
    return build_from_sections(OmegaConf.load(config_file(config)))


def build_from_sections(sections: Mapping[str, Any] | Any) -> nn.Module:
    """`build_backbone` for what a config holds; what it leaves out is as in upstream's default."""
    from dinov2.configs import dinov2_default_config
    from dinov2.models import build_model_from_cfg

    register_guard()
    cfg: Any = OmegaConf.merge(dinov2_default_config, sections)
    model: nn.Module = build_model_from_cfg(cfg, only_teacher=True)[0]
    return model
