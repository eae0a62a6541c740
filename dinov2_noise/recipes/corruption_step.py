"""The step that measures robustness: ``dinov2-noise evaluate corruptions`` of a training step's final teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.corruption_summary import SUMMARY_NAME
from dinov2_noise.recipes.steps import flags
from dinov2_noise.recipes.upstream_steps import ProbeStep, TrainStep


@dataclass(frozen=True, kw_only=True)
class CorruptionsStep(ProbeStep):
    """Accuracy on ImageNet-C's corruptions; ``root`` holds the clean images, or noisy ones for another question.

    Attributes:
        classifiers: a `linear` step, whose heads are used, or a folder of heads; None: they are trained first.
        knn: numbers of neighbours of a k-NN beside them.
        corruptions: ``all``, ``standard``, ``extra``, or names separated by commas. severities, noises: None keeps the
            command's defaults. imagenet_c: folder of corrupted images; None makes them on the fly.
    """

    classifiers: str | None = None
    knn: list[int] = field(default_factory=list)
    corruptions: str = "all"
    severities: list[int] | None = None
    noises: list[str] | None = None
    imagenet_c: str | None = None
    size: str | None = None
    seed: int | None = None
    geometry: str | None = None
    linear_options: str | None = None
    allow_missing: bool = False
    workers: int | None = None

    multi_process = False
    continues = True
    module = "dinov2_noise"
    results_name = SUMMARY_NAME
    no_influence = ("batch_size", "workers")

    def check(self, key: str) -> None:
        super().check(key)
        if self.imagenet_c is not None and (self.size is not None or self.seed is not None):
            raise ConfigError(
                f"{key}: size and seed are for images that are made, imagenet_c reads them: leave them out"
            )
        if self.classifiers is not None and self.linear_options:
            raise ConfigError(f"{key}: linear_options is for heads that are trained here, and classifiers are given")

    def bound_command(self, run: TrainStep, processes: int, heads: str | None = None) -> list[str]:
        """The command line; ``heads``: folder of the classifiers."""
        needs_train = self.knn or heads is None
        return [
            *("dinov2-noise", "evaluate", "corruptions", "--config-file", str(Path(run.output) / "config.yaml")),
            *("--weights", str(run.teacher), "--val-dataset", self.dataset("VAL")),
            *(["--classifiers", heads] if heads else []),
            *(["--train-dataset", self.dataset("TRAIN")] if needs_train else []),
            *("--output", self.output, "--name", self.of, "--corruptions", self.corruptions),
            *_joined("knn", self.knn or None),
            *_joined("severities", self.severities),
            *([] if self.noises is None else ["--noises", ",".join(self.noises) or "none"]),
            *self._options(),
        ]

    def _options(self) -> list[str]:
        names = ("imagenet_c", "size", "seed", "geometry", "linear_options", "allow_missing", "batch_size", "workers")
        return flags(self, *names)

    def clear(self, *, keep_checkpoints: bool) -> None:
        """Nothing: the command goes on with its own cells, and refuses a folder of another model."""

    def reads(self) -> list[Path]:
        return [*super().reads(), *([Path(self.imagenet_c)] if self.imagenet_c else [])]

    def writes(self) -> list[Path]:
        return [Path(self.output), self.results]


def _joined(name: str, values: list[int] | None) -> list[str]:
    return [] if values is None else [f"--{name}", ",".join(map(str, values))]
