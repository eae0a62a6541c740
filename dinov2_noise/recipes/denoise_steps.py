"""The steps that train a denoiser and apply one."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2_noise.data import parse_dataset_string, refuse_fresh
from dinov2_noise.denoise.train import WEIGHTS_NAME
from dinov2_noise.errors import ConfigError, DinoNoiseError
from dinov2_noise.files import MANIFEST_NAME
from dinov2_noise.recipes.steps import CommandLineStep, flags
from dinov2_noise.recipes.upstream_steps import dataset_paths

_DATASET_STRING = re.compile(r"\w+:\w+=")


@dataclass(frozen=True, kw_only=True)
class DenoiseStep(CommandLineStep):
    """What both share: a folder that is continued, and several processes.

    Attributes:
        noisy: the noisy images.
        output: the folder written.
        batch_size: images per step, of all processes together when training.
    """

    noisy: str
    output: str
    batch_size: int | None = None
    gpus: int = 1

    multi_process = True
    continues = True

    def command(self) -> list[str]:
        return self.bound_command(max(1, self.gpus))

    @abstractmethod
    def bound_command(self, processes: int) -> list[str]:
        """The command line that starts so many processes; one is told by its launcher whether there are others."""

    def folder(self) -> Path:
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class DenoiseTrainStep(DenoiseStep):
    """``dinov2-noise denoise train``; what is not given keeps the command's default.

    Attributes:
        per_class: train on at most so many images of each class; ``images_per_class`` is its old name.
    """

    epochs: int | None = None
    steps: int | None = None
    crop: int | None = None
    lr: float | None = None
    n_feature: int | None = None
    residual: bool = False
    stride: int | None = None
    ema: float | None = None
    precision: str | None = None
    seed: int | None = None
    per_class: int | None = None
    images_per_class: int | None = None
    min_side: int | None = None
    max_side: int | None = None
    range: str | None = None
    skip_bad: int | None = None

    no_influence = ("skip_bad",)

    def check(self, key: str) -> None:
        super().check(key)
        if _DATASET_STRING.match(self.noisy):
            try:
                refuse_fresh(parse_dataset_string(self.noisy))
            except DinoNoiseError as cause:
                raise ConfigError(f"{key}.noisy: {cause}") from cause
        if self.per_class is not None and self.images_per_class is not None:
            raise ConfigError(f"{key}: per_class and images_per_class are the same setting: leave one out")
        if self.batch_size is not None and self.batch_size % self.processes:
            raise ConfigError(
                f"{key}.batch_size: {self.batch_size} images cannot be shared out evenly among {self.processes} GPUs"
            )

    def identity(self) -> dict[str, Any]:
        # Under its old name, as in the records of earlier versions.
        found = super().identity()
        per_class = found.pop("per_class")
        return found if per_class is None else found | {"images_per_class": per_class}

    def bound_command(self, processes: int) -> list[str]:
        names = (
            *("epochs", "steps", "batch_size", "crop", "lr", "n_feature", "residual", "stride", "ema", "precision"),
            *("seed", "per_class", "images_per_class", "min_side", "max_side", "range", "skip_bad"),
        )
        options = [*flags(self, *names), *_gpus(processes)]
        return ["dinov2-noise", "denoise", "train", self.noisy, self.output, *options]

    def reads(self) -> list[Path]:
        if _DATASET_STRING.match(self.noisy) is None:
            return [Path(self.noisy)]
        without = ":".join(token for token in self.noisy.split(":") if not token.startswith("denoised="))
        return dataset_paths(without)  # as the command does: the twins are what is to be made

    def writes(self) -> list[Path]:
        return [Path(self.output), Path(self.output) / MANIFEST_NAME, Path(self.output) / WEIGHTS_NAME]


@dataclass(frozen=True, kw_only=True)
class DenoiseApplyStep(DenoiseStep):
    """``dinov2-noise denoise apply``; what is not given keeps the command's default.

    Attributes:
        weights: file of `denoise-train`, or published ones.
        model: any other denoiser instead, as ``module:factory``; ``model_option`` holds its arguments, ``key=value``.
    """

    weights: str | None = None
    model: str | None = None
    model_option: list[str] | None = None
    padding: str | None = None
    max_pixels: int | None = None
    precision: str | None = None
    debias: str | None = None
    range: str | None = None
    skip_bad: int | None = None

    no_influence = ("batch_size", "skip_bad")

    def check(self, key: str) -> None:
        super().check(key)
        if (self.weights is None) == (self.model is None):
            raise ConfigError(f"{key}: give either weights or model")

    def bound_command(self, processes: int) -> list[str]:
        names = ("weights", "model", "batch_size", "padding", "max_pixels", "precision", "debias", "range", "skip_bad")
        model_options = [word for option in self.model_option or [] for word in ("--model-option", option)]
        options = [*flags(self, *names), *model_options, *_gpus(processes)]
        return ["dinov2-noise", "denoise", "apply", self.noisy, self.output, *options]

    def reads(self) -> list[Path]:
        return [Path(self.noisy), *([] if self.weights is None else [Path(self.weights)])]

    def writes(self) -> list[Path]:
        return [Path(self.output), Path(self.output) / MANIFEST_NAME]


def _gpus(processes: int) -> list[str]:
    return ["--gpus", str(processes)] if processes > 1 else []
