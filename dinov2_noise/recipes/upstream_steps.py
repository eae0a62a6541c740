"""The steps that are upstream's own scripts: pretraining, k-NN and linear probe."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import OmegaConf

from dinov2_noise.configs import config_file
from dinov2_noise.data import default_extra, parse_dataset_string
from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.upstream_results import KNN_FILE, LINEAR_FILE
from dinov2_noise.launch import train_command
from dinov2_noise.recipes.steps import CommandLineStep, Step, flags

# Upstream's defaults, for configs that leave them out.
_EPOCHS, _EPOCH_LENGTH, _EVAL_PERIOD = 100, 1250, 12500
_FREE_OPTIONS = ("train.num_workers=", "train.saveckp_freq=", "health.")  # of no influence on what is learned


@dataclass(frozen=True, kw_only=True)
class TrainStep(CommandLineStep):
    """Upstream's ``dinov2.train.train``.

    Attributes:
        config: a file, or a name that ``dinov2-noise configs`` lists.
        dataset: the dataset string; None keeps the config's.
        output: folder of the run.
        options: ``key=value``, as on the command line.
        global_batch: images per step over all GPUs, shared out among them; None keeps the config's batch per GPU.
    """

    config: str
    output: str
    dataset: str | None = None
    options: list[str] = field(default_factory=list)
    global_batch: int | None = None
    gpus: int = 1

    multi_process = True
    continues = True

    def check(self, key: str) -> None:
        super().check(key)
        if self.global_batch is not None and self.global_batch % self.processes:
            raise ConfigError(
                f"{key}.global_batch: {self.global_batch} images cannot be shared out evenly among "
                f"{self.processes} GPUs"
            )
        try:
            self._check_length()
        except ConfigError as error:
            raise ConfigError(f"{key}.config: {error}") from error

    @cached_property
    def _config(self) -> Any:
        return OmegaConf.merge(OmegaConf.load(config_file(self.config)), OmegaConf.from_dotlist(self._plain_options()))

    def _plain_options(self) -> list[str]:
        # A key below a list cannot be merged; none of these decides how long the run is.
        return [option for option in self.options if not option.startswith("curriculum.")]

    def _check_length(self) -> None:
        period = self._select("evaluation.eval_period_iterations", _EVAL_PERIOD)
        if period < 1 or self.iterations % period:
            raise ConfigError(
                f"upstream writes the teacher every evaluation.eval_period_iterations = {period}, which must divide "
                f"the {self.iterations} iterations of {self.config}: add evaluation.eval_period_iterations="
                f"{self.iterations} to the step's options"
            )

    def _select(self, key: str, default: int) -> int:
        value = OmegaConf.select(self._config, key)
        return default if value is None else int(value)

    @property
    def iterations(self) -> int:
        """Optimizer steps of the whole run."""
        return self._select("optim.epochs", _EPOCHS) * self._select("train.OFFICIAL_EPOCH_LENGTH", _EPOCH_LENGTH)

    @property
    def teacher(self) -> Path:
        """The file of the teacher at the end, which probes read."""
        return Path(self.output) / "eval" / f"training_{self.iterations - 1}" / "teacher_checkpoint.pth"

    def all_options(self) -> list[str]:
        batch = [] if self.global_batch is None else [f"train.batch_size_per_gpu={self.global_batch // self.processes}"]
        dataset = [] if self.dataset is None else [f"train.dataset_path={self.dataset}"]
        return [*dataset, *batch, *self.options]

    def command(self) -> list[str]:
        gpus = ["--gpus", str(self.gpus)] if self.gpus > 1 else []
        return ["dinov2-noise", "train", self.config, "--output", self.output, *gpus, *self.all_options()]

    def processes_command(self, processes: int) -> list[str]:
        """What `command` starts: upstream's script, through torchrun where there are several processes."""
        return train_command(self.config, Path(self.output), self.all_options(), processes=processes)

    def config_hash(self) -> str:
        """Hash of what the config file says; comments do not count."""
        content = OmegaConf.to_container(OmegaConf.load(config_file(self.config)))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        kept = [option for option in self.options if not option.startswith(_FREE_OPTIONS)]
        # With a batch per GPU more of them make a larger batch.
        processes = {"processes": self.processes} if self.global_batch is None else {}
        return super().identity() | {"options": kept} | processes

    def reads(self) -> list[Path]:
        dataset = self.dataset or OmegaConf.select(self._config, "train.dataset_path")
        # An option may name what another step writes, as curriculum.stages.1.anchor.teacher does.
        named = [value for _, _, value in (option.partition("=") for option in self.options) if "/" in value]
        return [*(dataset_paths(dataset) if dataset else []), *map(Path, named)]

    def writes(self) -> list[Path]:
        return [Path(self.output) / "model_final.pth", self.teacher]

    def folder(self) -> Path:
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class ProbeStep(Step):
    """Upstream's evaluation of a training step's final teacher, on the images below ``root``.

    Attributes:
        of: the training step.
        arm: what the record calls it, by default the step's name: runs that differ in their seed alone share one.
        root: data set to probe on; its ``train`` images are the reference, its ``val`` images are counted.
        output: folder for the results.
        train_dataset, val_dataset: dataset strings instead of ``root``.
    """

    of: str
    output: str
    arm: str | None = None
    root: str | None = None
    train_dataset: str | None = None
    val_dataset: str | None = None
    batch_size: int | None = None
    gpus: int = 1

    multi_process = True
    module: ClassVar[str]
    results_name: ClassVar[str]

    def check(self, key: str) -> None:
        super().check(key)
        if (self.root is None) == (self.train_dataset is None or self.val_dataset is None):
            raise ConfigError(f"{key}: give either root, or train_dataset and val_dataset")

    def identity(self) -> dict[str, Any]:
        # Working folders from before there was an `arm` stay done.
        return {key: value for key, value in super().identity().items() if key != "arm" or value is not None}

    def dataset(self, split: str) -> str:
        given = self.train_dataset if split == "TRAIN" else self.val_dataset
        return given or f"ImageNet:split={split}:root={self.root}"

    def bound_command(self, run: TrainStep, processes: int) -> list[str]:
        """The command line; ``run`` is the step called ``of``."""
        launcher = ["-m", "dinov2_noise.launch", "--standalone", "--nproc-per-node", str(processes)]
        return [
            *(
                "python",
                *(launcher if processes > 1 else []),
                "-m",
                self.module,
                "--config-file",
                str(Path(run.output) / "config.yaml"),
            ),
            *("--pretrained-weights", str(run.teacher), "--output-dir", self.output),
            *("--train-dataset", self.dataset("TRAIN"), "--val-dataset", self.dataset("VAL"), *self._options()),
        ]

    @abstractmethod
    def _options(self) -> list[str]:
        """Options of the script beside the images and the weights."""

    def clear(self, *, keep_checkpoints: bool) -> None:
        """Take out what an earlier probe left: results, which upstream appends to, and heads it would go on from."""
        self.results.unlink(missing_ok=True)
        if not keep_checkpoints:
            (Path(self.output) / "last_checkpoint").unlink(missing_ok=True)

    @property
    def results(self) -> Path:
        return Path(self.output) / self.results_name

    def reads(self) -> list[Path]:
        return [*dataset_paths(self.dataset("TRAIN")), *dataset_paths(self.dataset("VAL"))]

    def writes(self) -> list[Path]:
        return [self.results]

    def folder(self) -> Path:
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class KnnStep(ProbeStep):
    """Upstream's ``dinov2.eval.knn``; the record holds the first of ``nb_knn``."""

    nb_knn: list[int] = field(default_factory=lambda: [20, 10, 100, 200])

    module = "dinov2.eval.knn"
    results_name = KNN_FILE
    no_influence = ("batch_size",)

    def _options(self) -> list[str]:
        return [*flags(self, "batch_size"), "--nb_knn", *map(str, self.nb_knn)]


@dataclass(frozen=True, kw_only=True)
class LinearStep(ProbeStep):
    """Upstream's ``dinov2.eval.linear``; what is not given keeps its defaults (10 epochs of 1,250 iterations)."""

    epochs: int | None = None
    epoch_length: int | None = None
    num_workers: int | None = None
    eval_period_iterations: int | None = None
    learning_rates: list[float] | None = None

    module = "dinov2.eval.linear"
    results_name = LINEAR_FILE
    no_influence = ("num_workers",)

    def identity(self) -> dict[str, Any]:
        # Its batch is per process, and upstream's learning rates grow with their number.
        return super().identity() | {"processes": self.processes}

    def _options(self) -> list[str]:
        names = ("batch_size", "num_workers", "epochs", "epoch_length", "eval_period_iterations", "learning_rates")
        return flags(self, *names)


def dataset_paths(dataset: str) -> list[Path]:
    """Folders and files that a dataset string reads."""
    spec = parse_dataset_string(dataset)
    subset = spec.subset.file if spec.subset else None
    paths = [spec.root, *filter(None, (spec.denoised, spec.list_file, subset))]
    if spec.name == "ImageNet":
        paths.append(spec.extra or default_extra(spec.root))
    elif spec.extra:
        paths.append(spec.extra)
    return paths
