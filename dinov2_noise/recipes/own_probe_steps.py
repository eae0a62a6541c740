"""The steps that probe a training step's final teacher by our own `evaluate linear` and `evaluate knn`: features once
for both, any number of classes, 95 % intervals and floors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from dinov2_noise.recipes.steps import flags
from dinov2_noise.recipes.upstream_steps import ProbeStep, TrainStep


@dataclass(frozen=True, kw_only=True)
class OwnProbeStep(ProbeStep):
    """What both share: ``output`` may be the same folder, where features are kept.

    Attributes:
        noise: made on the fly on images as they lie there; ``clean``: none.
    """

    noise: str = "clean"
    geometry: str | None = None
    workers: int | None = None

    multi_process = False
    continues = True
    module = "dinov2_noise"
    command_name: ClassVar[str]
    metric: ClassVar[str]
    no_influence = ("batch_size", "workers")

    def bound_command(self, run: TrainStep, processes: int) -> list[str]:
        return [
            *("dinov2-noise", "evaluate", self.command_name, "--config-file", str(Path(run.output) / "config.yaml")),
            *("--weights", str(run.teacher), "--train", self.dataset("TRAIN"), "--val", self.dataset("VAL")),
            *("--output", self.output, "--arm", self.name_of_the_arm),
            *flags(self, "noise", "geometry", "batch_size", "workers"),
            *self._options(),
        ]

    @property
    def name_of_the_arm(self) -> str:
        return self.arm or self.of

    @property
    def results(self) -> Path:
        """The record of its accuracy; the command writes it."""
        return Path(self.output) / "records" / f"{self.name_of_the_arm}-{self.metric}_top1-{self.noise}.json"

    def clear(self, *, keep_checkpoints: bool) -> None:
        """Nothing: the command goes on with its own features, and refuses a folder of another model."""

    def folder(self) -> Path:
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class LogisticStep(OwnProbeStep):
    """``dinov2-noise evaluate linear``: logistic regression, its strength chosen on a part of the training images."""

    blocks: int | None = None

    command_name = "linear"
    metric = "logistic"

    def _options(self) -> list[str]:
        return flags(self, "blocks")


@dataclass(frozen=True, kw_only=True)
class OwnKnnStep(OwnProbeStep):
    """``dinov2-noise evaluate knn``; the record holds the first of ``k``."""

    k: list[int] = field(default_factory=lambda: [20])

    command_name = "knn"
    metric = "knn"

    def _options(self) -> list[str]:
        return ["--k", ",".join(map(str, self.k))]
