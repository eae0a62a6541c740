"""Which backbone: that of a run's folder, or of two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dinov2_noise.errors import ConfigError


@dataclass(frozen=True)
class Model:
    """Where a backbone is, and what it is called unless told otherwise."""

    name: str
    config_file: Path
    weights: Path


def open_model(run: Path | None, config_file: Path | None, weights: Path | None) -> Model:
    """From ``--run``, or from ``--config-file`` and ``--weights``.

    Raises:
        ConfigError: neither, or both. MissingFolderError, CheckpointError: see `open_run`.
    """
    from dinov2_noise.evaluation.runs import open_run

    if run is not None and config_file is None and weights is None:
        found = open_run(run)
        return Model(found.path.resolve().name, found.config_file, found.weights)
    if run is not None or config_file is None or weights is None:
        raise ConfigError("which model? Give --run RUN, or both --config-file and --weights")
    return Model(config_file.resolve().parent.name, config_file, weights)


def training_seed(config_file: Path) -> int:
    """The seed of the run that wrote a config; 0 where it has none."""
    from omegaconf import OmegaConf

    from dinov2_noise.configs import config_file as found

    return int(OmegaConf.select(OmegaConf.load(found(str(config_file))), "train.seed", default=0))
