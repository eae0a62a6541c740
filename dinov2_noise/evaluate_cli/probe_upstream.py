"""Upstream's own `eval/linear.py` and `eval/knn.py` on labelled images, unchanged, as processes of their own."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluate_cli.common import console
from dinov2_noise.evaluate_cli.model import Model, training_seed

if TYPE_CHECKING:
    from dinov2_noise.evaluation.label_noise import Noises
    from dinov2_noise.evaluation.label_sources import LabelSet
    from dinov2_noise.evaluation.label_task import Task
    from dinov2_noise.evaluation.records import Record
    from dinov2_noise.upstream.probing.own_features import FeatureStore
    from dinov2_noise.upstream.probing.own_labels import KnnProbe, LinearProbe

_LEAST_CLASSES = 5  # both scripts always count the top 5
_CHOSEN = "the best head on the validation images, as upstream chooses it"


@dataclass(frozen=True)
class UpstreamProbe:
    """One of the two scripts.

    Attributes:
        arm: what is evaluated. probe: which script, and the numbers of neighbours. options: further ones of the script.
        store: reads the images for the colour floor.
    """

    model: Model
    arm: str
    output: Path
    probe: LinearProbe | KnnProbe
    batch_size: int
    workers: int
    options: str
    store: FeatureStore

    def check(self, task: Task) -> None:
        """Check that the script can take the images.

        Raises:
            ConfigError: too few classes or images, a cross-validation, or options that cannot be read.
        """
        from dinov2_noise.upstream.probing.own_labels import KnnProbe

        if task.n_classes < _LEAST_CLASSES:
            raise ConfigError(
                f"upstream's scripts need {_LEAST_CLASSES} classes, these images have {task.n_classes}: leave "
                "--upstream out"
            )
        if len(task.folds) > 1:
            raise ConfigError("upstream's scripts know no cross-validation: leave --folds or --upstream out")
        if isinstance(self.probe, KnnProbe):
            self.probe.check(task)
        for part in (task.train, task.val):
            _require_plain(part)
        self._words()

    def record(self, task: Task, noises: Noises, name: str, facts: dict[str, Any]) -> Record:
        """The result with one noise; the script runs unless it has.

        Raises:
            LaunchError: the script failed. CheckpointError: it left no result.
        """
        from dinov2_noise.evaluation.floors import chance
        from dinov2_noise.evaluation.label_noise import file_name
        from dinov2_noise.evaluation.records import Record, versions
        from dinov2_noise.files import OutputFolder, read_manifest
        from dinov2_noise.upstream.probing.own_labels import noise_facts

        folder = self.output / f"upstream-{self.probe.kind}" / file_name(name)
        datasets = noises.datasets(task, name)
        results = OutputFolder(folder, f"evaluate {self.probe.kind} --upstream", self._parameters(datasets))
        results.open()
        if not read_manifest(folder)["complete"]:
            self._run(folder, datasets)
            results.close()
        value, how = self._read(folder)
        label, about = noise_facts(task, noises, name)
        levels = {
            "chance": chance(task.train.targets.tolist(), task.val.targets.tolist()),
            "colour": self._colour_floor(task, datasets, name),
        }
        record = Record(
            arm=self.arm,
            metric=f"{self.probe.kind}_top1",
            value=value,
            n_images=len(task.val),
            seed=training_seed(self.model.config_file),
            dataset=datasets[1],
            details={"noise": label, **about, **how, **facts, "probe": "upstream's script", "floors": levels},
            versions=versions(),
        )
        record.save(self.output / "records" / f"{self.arm}-{record.metric}-{file_name(name)}.json")
        return record

    def _colour_floor(self, task: Task, datasets: tuple[str, str], name: str) -> float:
        from dinov2_noise.upstream.probing.own_features import as_rows
        from dinov2_noise.upstream.probing.own_labels import colour_floor

        parts = zip(datasets, (task.train, task.val), strict=True)
        train, val = (self.store.colours_of(text, f"colours, {name}")[as_rows(part.rows)] for text, part in parts)
        return colour_floor(task, self.probe, train, val)

    def _parameters(self, datasets: tuple[str, str]) -> dict[str, Any]:
        """Beside what the folder above depends on."""
        return {"datasets": list(datasets), "options": [*self._own_options(), *self._words()]}

    def _run(self, folder: Path, datasets: tuple[str, str]) -> None:
        from dinov2_noise.launch import run as launch

        log = folder.with_suffix(".log")
        console.print(f"running upstream's {self.probe.kind}.py: log in {log}", soft_wrap=True)
        command = [
            *(sys.executable, "-m", f"dinov2.eval.{self.probe.kind}", "--config-file", str(self.model.config_file)),
            *("--pretrained-weights", str(self.model.weights), "--output-dir", str(folder)),
            *("--train-dataset", datasets[0], "--val-dataset", datasets[1], "--batch-size", str(self.batch_size)),
            *self._own_options(),
            *self._words(),
        ]
        if self.probe.kind == "linear":  # its loader needs a worker
            command += ["--num-workers", str(max(1, self.workers))]
        launch(command, log=log)

    def _own_options(self) -> list[str]:
        from dinov2_noise.upstream.probing.own_labels import KnnProbe

        if isinstance(self.probe, KnnProbe):
            return ["--nb_knn", *map(str, self.probe.ks)]
        return []

    def _read(self, folder: Path) -> tuple[float, dict[str, Any]]:
        from dinov2_noise.evaluation.upstream_results import KNN_FILE, LINEAR_FILE, read_knn, read_linear
        from dinov2_noise.upstream.probing.own_labels import KnnProbe

        if isinstance(self.probe, KnnProbe):
            by_k = read_knn(folder / KNN_FILE)
            k = self.probe.ks[0]
            return by_k[k], {"k": k, "top1_by_k": {str(key): value for key, value in by_k.items()}}
        classifier, accuracy = read_linear(folder / LINEAR_FILE)
        return accuracy, {"classifier": classifier, "chosen": _CHOSEN}

    def _words(self) -> list[str]:
        try:
            return shlex.split(self.options)
        except ValueError as cause:
            raise ConfigError(f"--upstream-options {self.options!r}: {cause}") from cause


def _require_plain(part: LabelSet) -> None:
    """Check that a data set given as a string is used whole, its classes numbered as it numbers them."""
    from dinov2_noise import data

    if not part.dataset:
        return  # a label file will be written
    dataset: Any = data.make(part.dataset)
    if len(dataset) != len(part) or not np.array_equal(dataset.get_targets(), part.targets):
        raise ConfigError(
            f"{part.source.name}: upstream's script takes a dataset string whole, its classes numbered alike for "
            "training and validation: give folders or a CSV, or leave --upstream out"
        )
