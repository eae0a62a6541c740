"""The config sections ``step:``, ``health:`` and ``loader:``: how an optimizer step is computed, what is watched
meanwhile, and how images are made ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise.curriculum.strict import build_strict, choose
from dinov2_noise.errors import ConfigError


@dataclass(frozen=True)
class StepConfig:
    """How an optimizer step is computed.

    ``micro_batches``: parts into which each process splits its batch, one after the other (gradient accumulation); it
    divides ``train.batch_size_per_gpu``. ``compile``: `torch.compile` for the backbones' blocks.
    """

    micro_batches: int = 1
    compile: bool = False


@dataclass(frozen=True)
class HealthConfig:
    """What is watched during training.

    ``period_iterations``: how often the signs of collapse are measured, 0 for never. ``max_skipped_steps``: optimizer
    steps in a row that the gradient scaler may skip. ``dump_bad_batch``: keep the batch of a loss that is not finite.
    ``trial_save``: write (and delete) a full checkpoint before the first step. ``lost_rank_timeout_s``: after how many
    seconds without a sign of life a process counts as dead, 0 for never.
    """

    period_iterations: int = 100
    max_skipped_steps: int = 20
    dump_bad_batch: bool = True
    trial_save: bool = True
    lost_rank_timeout_s: int = 45


AUGMENTATIONS = ("fast", "upstream")


@dataclass(frozen=True)
class LoaderConfig:
    """How images are made ready.

    ``augmentation``: ``fast``, the same random crops and changes computed in less time, equal within rounding to 8 bit
    (see `dinov2_noise.augment.fast`), or ``upstream``, by the checkout's own code.
    """

    augmentation: str = "fast"


def parse_step(section: Any, *, batch_size: int) -> StepConfig:
    """The checked section ``step:`` (None when it is absent).

    Raises:
        ConfigError: an unknown key, a wrong type or value.
    """
    config = build_strict(StepConfig, _plain(section), "step")
    if config.micro_batches < 1 or batch_size % config.micro_batches:
        raise ConfigError(
            f"step.micro_batches is {config.micro_batches}: it must divide train.batch_size_per_gpu, {batch_size}"
        )
    return config


def parse_health(section: Any) -> HealthConfig:
    """The checked section ``health:`` (None when it is absent).

    Raises:
        ConfigError: an unknown key, a wrong type or value.
    """
    config = build_strict(HealthConfig, _plain(section), "health")
    for name, least in (("period_iterations", 0), ("max_skipped_steps", 1), ("lost_rank_timeout_s", 0)):
        value = getattr(config, name)
        if value < least:
            raise ConfigError(f"health.{name} is {value}: it must be at least {least}")
    return config


def parse_loader(section: Any) -> LoaderConfig:
    """The checked section ``loader:`` (None when it is absent).

    Raises:
        ConfigError: an unknown key, a wrong type or value.
    """
    config = build_strict(LoaderConfig, _plain(section), "loader")
    choose(config.augmentation, AUGMENTATIONS, "loader.augmentation")
    return config


def _plain(section: Any) -> Any:
    if section is None:
        return {}
    return OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section
