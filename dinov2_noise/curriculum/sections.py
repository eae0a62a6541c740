"""The config sections ``step:``, ``health:``, ``loader:`` and ``monitor:``: how an optimizer step is computed, what is
watched meanwhile, how images are made ready, and what is told of a run.
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


@dataclass(frozen=True)
class MonitorConfig:
    """What is told of a run while it trains, every ``evaluation.eval_period_iterations`` and at the end.

    ``enabled``: all that follows. ``train``, ``val``: dataset strings of labelled images for two quick probes; without
    them only what needs no labels is measured. ``noise``: these images are clean, their noisy version gets this noise;
    ``clean``: these images are noisy, their clean twins are in this folder, under the same paths. ``n_train``,
    ``n_val``: labelled images, as many of each class. ``n_images``: training images for what needs no labels, 0 for
    none. ``image_px``: side of the square that the network is shown, 0 for ``crops.global_crops_size``. ``knn``:
    neighbours. ``max_time_share``: of the run's time that may go into measuring, 1 for all that is due.
    ``line_period_iterations``: how often a line says how the run stands, 0 for never. ``tensorboard``: write curves
    to ``tensorboard/`` of the output folder. ``wandb``: project of Weights & Biases to send them to.
    """

    enabled: bool = True
    train: str = ""
    val: str = ""
    noise: str = ""
    clean: str = ""
    n_train: int = 1000
    n_val: int = 500
    n_images: int = 500
    image_px: int = 0
    knn: int = 10
    max_time_share: float = 0.02
    line_period_iterations: int = 100
    tensorboard: bool = True
    wandb: str = ""


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


def parse_monitor(section: Any, *, patch_px: int = 1) -> MonitorConfig:
    """The checked section ``monitor:`` (None when it is absent).

    Raises:
        ConfigError: an unknown key, a wrong type or value, or keys that contradict each other.
    """
    config = build_strict(MonitorConfig, _plain(section), "monitor")
    least = {"n_train": 2, "n_val": 1, "n_images": 0, "image_px": 0, "knn": 1, "line_period_iterations": 0}
    for name, bound in least.items():
        value = getattr(config, name)
        if value < bound:
            raise ConfigError(f"monitor.{name} is {value}: it must be at least {bound}")
    if not 0 < config.max_time_share <= 1:
        raise ConfigError(
            f"monitor.max_time_share is {config.max_time_share}: it must be above 0 and at most 1 (no limit); "
            "evaluation.eval_period_iterations=0 turns measuring off"
        )
    if config.image_px % patch_px:
        raise ConfigError(f"monitor.image_px is {config.image_px}, not a multiple of student.patch_size, {patch_px}")
    if bool(config.train) != bool(config.val):
        given, missing = ("train", "val") if config.train else ("val", "train")
        raise ConfigError(f"monitor.{given} is given and monitor.{missing} is not: the probes need both, or neither")
    if not config.train and (config.noise or config.clean):
        name = "noise" if config.noise else "clean"
        raise ConfigError(f"monitor.{name} belongs to labelled images: give monitor.train and monitor.val too")
    if config.noise and config.clean:
        raise ConfigError(
            "monitor.noise says that the images of monitor.train are clean, monitor.clean that they are noisy: give "
            "one of them"
        )
    return config


def _plain(section: Any) -> Any:
    if section is None:
        return {}
    return OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section
