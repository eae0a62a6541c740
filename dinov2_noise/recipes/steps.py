"""The kinds of steps a recipe can hold: their settings, the command each becomes, and the files it reads and writes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from dinov2_noise.data import default_extra
from dinov2_noise.errors import ConfigError, OutputFolderError
from dinov2_noise.files import MANIFEST_NAME, read_manifest

_RESOURCES = ("needs", "gpus", "nodes", "hours", "cpus")  # kinds for which the number of GPUs counts add it


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """What all kinds share.

    Attributes:
        needs: steps to be done first, beside those whose outputs this one reads.
        gpus: processes on each node, one per GPU; more than one is for training, denoising, `knn` and `linear`.
        nodes: machines, under SLURM.
        hours: time limit of the SLURM job.
        cpus: cores of each of its processes; None: the recipe's ``slurm.cpus_per_task``.
    """

    needs: list[str] = field(default_factory=list)
    gpus: int = 0
    nodes: int = 1
    hours: float = 24.0
    cpus: int | None = None

    multi_process: ClassVar[bool] = False
    no_influence: ClassVar[tuple[str, ...]] = ()  # settings that do not change what comes out
    continues: ClassVar[bool] = False  # begun again it goes on in its folder, and leaves a complete one as it is

    def check(self, key: str) -> None:
        """Raise ConfigError naming the key below ``key`` that is out of range."""
        for name in ("hours", "nodes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{key}.{name} must be positive, not {getattr(self, name)}")
        if self.gpus < 0 or (self.processes > 1 and not self.multi_process):
            raise ConfigError(f"{key}: gpus={self.gpus}, nodes={self.nodes}, but this kind of step is one process")

    @property
    def processes(self) -> int:
        return max(1, self.gpus) * self.nodes

    def identity(self) -> dict[str, Any]:
        """The settings that decide what comes out."""
        free = (*_RESOURCES, *self.no_influence)
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in free}

    @abstractmethod
    def reads(self) -> list[Path]:
        """Files and folders it needs."""

    @abstractmethod
    def writes(self) -> list[Path]:
        """Files and folders that exist when it is done."""

    def folder(self) -> Path | None:
        """The one folder that is this step's alone: what `--force` sets aside."""
        return None

    def missing(self) -> str | None:
        """Why the outputs are not complete; None when they are."""
        for path in self.writes():
            if not path.exists():
                return f"{path} does not exist"
            if (path / MANIFEST_NAME).is_file() and not _complete(path):
                return f"{path} is incomplete"
        return None


@dataclass(frozen=True, kw_only=True)
class CommandLineStep(Step):
    """A step whose command follows from its own settings."""

    @abstractmethod
    def command(self) -> list[str]:
        """As one would type it; ``dinov2-noise`` and ``python`` come first."""


@dataclass(frozen=True, kw_only=True)
class NoiseStep(CommandLineStep):
    """``dinov2-noise add-noise``."""

    source: str
    output: str
    noise: str
    seed: int = 42
    workers: int | None = None
    format: str | None = None
    range: str | None = None
    skip_bad: int | None = None

    continues = True
    no_influence = ("workers", "skip_bad")

    def command(self) -> list[str]:
        options = flags(self, "noise", "seed", "workers", "format", "range", "skip_bad")
        return ["dinov2-noise", "add-noise", self.source, self.output, *options]

    def reads(self) -> list[Path]:
        return [Path(self.source)]

    def writes(self) -> list[Path]:
        return [Path(self.output), Path(self.output) / MANIFEST_NAME]

    def folder(self) -> Path:
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class IndexStep(CommandLineStep):
    """``dinov2-noise index``."""

    root: str
    extra: str | None = None

    def command(self) -> list[str]:
        return ["dinov2-noise", "index", self.root, *flags(self, "extra")]

    def reads(self) -> list[Path]:
        return [Path(self.root)]

    def writes(self) -> list[Path]:
        return [default_extra(Path(self.root)) if self.extra is None else Path(self.extra)]

    def missing(self) -> str | None:
        splits = [split for split in ("TRAIN", "VAL", "TEST") if (Path(self.root) / split.lower()).is_dir()]
        files = [self.writes()[0] / f"paths-{split}.npy" for split in splits] or self.writes()
        return next((f"{path} does not exist" for path in files if not path.exists()), None)


@dataclass(frozen=True, kw_only=True)
class CommandStep(CommandLineStep):
    """Any other command. Without ``inputs`` and ``needs`` it needs the step before it."""

    run: list[str]
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def check(self, key: str) -> None:
        super().check(key)
        if not self.run:
            raise ConfigError(f"{key}.run is empty")

    def command(self) -> list[str]:
        return list(self.run)

    def reads(self) -> list[Path]:
        return [Path(path) for path in self.inputs]

    def writes(self) -> list[Path]:
        return [Path(path) for path in self.outputs]


def flags(step: Step, *names: str) -> list[str]:
    """``--name value`` of the settings that are given, ``--name`` of those that are true."""
    found: list[str] = []
    for name in names:
        value, flag = getattr(step, name), f"--{name.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif value is not None and value is not False:
            found += [flag, *([str(item) for item in value] if isinstance(value, list) else [str(value)])]
    return found


def _complete(folder: Path) -> bool:
    try:
        return read_manifest(folder).get("complete") is True
    except OutputFolderError:
        return False


def minutes(hours: float) -> int:
    """Whole minutes, as SLURM wants them, rounded up."""
    return math.ceil(hours * 60)


def reads_from(paths: Sequence[Path], outputs: Mapping[Path, str]) -> list[str]:
    """Which steps write one of ``paths``, a folder above it, or a file in it; ``outputs``: path → step."""
    found: dict[str, None] = {}
    for path in paths:
        for output, name in outputs.items():
            if path == output or output in path.parents or path in output.parents:
                found[name] = None
    return list(found)
