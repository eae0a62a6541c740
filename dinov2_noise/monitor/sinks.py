"""Where curves go beside ``monitor.jsonl``: TensorBoard, and Weights & Biases where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from dinov2_noise.curriculum.sections import MonitorConfig
from dinov2_noise.curves import Curves
from dinov2_noise.errors import ConfigError

CURVES_NAME = "tensorboard"
SCHEDULES = ("lr", "wd", "mom", "last_layer_lr", "current_batch_size")
"""Meters that hold what a step was made with."""

_SPEED = ("iter_time", "data_time", "images_per_s", "waited")
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "dinov2-noise[wandb]"}


class Sink(Protocol):
    """Takes points of curves."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def add_text(self, step: int, name: str, text: str) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def require_packages(config: MonitorConfig) -> None:
    """Check that what ``config`` sends curves to is installed; nothing is imported.

    Raises:
        ConfigError: it is not; names the key and the way out.
    """
    wanted = {"tensorboard": config.tensorboard, "wandb": bool(config.wandb)}
    for name, is_wanted in wanted.items():
        if is_wanted and find_spec(name) is None:
            off = "monitor.tensorboard=false" if name == "tensorboard" else "leave monitor.wandb empty"
            raise ConfigError(
                f"monitor.{name} needs the package {name}, which is not installed: pip install '{_PACKAGES[name]}', or "
                f"{off}"
            )


def open_sinks(
    config: MonitorConfig,
    output: Path,
    first_iteration: int,
    settings: Callable[[], Mapping[str, Any]],
    undisturbed: Callable[[], AbstractContextManager[None]],
) -> list[Sink]:
    """The sinks of a run that goes on at ``first_iteration``; what older files say from there on does not count.

    Args:
        config: says which.
        output: folder of the run.
        first_iteration: 0 for a new one.
        settings: the run's config, for Weights & Biases.
        undisturbed: keeps the random generators as they are while another package starts.

    Raises:
        ConfigError: Weights & Biases does not start.
        WriteError: TensorBoard's files cannot be written.
    """
    sinks: list[Sink] = []
    with undisturbed():
        if config.tensorboard:
            sinks.append(Curves(output / CURVES_NAME, first_iteration - 1))
        if config.wandb:
            sinks.append(Wandb(config.wandb, output, settings(), is_new=first_iteration == 0))
    return sinks


class Wandb:
    """One run of a project of Weights & Biases, continued when training is.

    Its own variables count, such as ``WANDB_MODE=offline``; its files lie in ``wandb/`` of the output folder.
    """

    def __init__(self, project: str, output: Path, settings: Mapping[str, Any], *, is_new: bool) -> None:
        import wandb  # type: ignore[import-not-found, unused-ignore]

        marker = output / "wandb-run"
        known = None if is_new or not marker.is_file() else marker.read_text(encoding="utf-8").strip()
        try:
            self._run: Any = wandb.init(
                project=project, name=output.name, dir=str(output), id=known, resume="allow", config=dict(settings)
            )
        except Exception as cause:  # of its own many kinds: no key, no network, no such project
            raise ConfigError(
                f"monitor.wandb: Weights & Biases does not start a run of project {project!r} ({cause}): try `wandb "
                "login`, or set WANDB_MODE=offline and send it later with `wandb sync`"
            ) from cause
        marker.write_text(f"{self._run.id}\n", encoding="utf-8")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def add_text(self, step: int, name: str, text: str) -> None:
        self._run.log({name: text}, step=step)

    def flush(self) -> None:
        """It sends by itself."""

    def close(self) -> None:
        self._run.finish()


def curve_names(meters: Mapping[str, float]) -> dict[str, float]:
    """Meters of the training under the names of their curves, by group: loss, schedule, speed, health."""
    return {f"{_group(name)}/{name}": value for name, value in meters.items()}


def _group(name: str) -> str:
    if name.endswith("_loss"):
        return "loss"
    if name in SCHEDULES:
        return "schedule"
    return "speed" if name in _SPEED else "health"
