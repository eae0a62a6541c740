"""Probe one arm by upstream's unmodified ``dinov2.eval.knn`` or ``dinov2.eval.linear``, and keep the result as a
record.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dinov2_noise.demo.recipe import Arm, Recipe, run_folder
from dinov2_noise.evaluation.records import Record, versions
from dinov2_noise.evaluation.upstream_results import read_knn, read_linear
from dinov2_noise.launch import run


@dataclass(frozen=True)
class Probe:
    """An arm and ``knn`` or ``linear``."""

    arm: Arm
    kind: str

    @property
    def record_name(self) -> str:
        return f"{self.arm.name}-{self.kind}.json"


def evaluate(probe: Probe, output: Path, recipe: Recipe, environment: Mapping[str, str]) -> None:
    """Run the probe unless its record exists."""
    record_path = output / "records" / probe.record_name
    if record_path.exists():
        return
    results = output / "probes" / f"{probe.arm.name}-{probe.kind}"
    root = output / probe.arm.evaluated_on
    command = [
        *(sys.executable, "-m", f"dinov2.eval.{probe.kind}"),
        *("--config-file", str(output / "configs" / f"{probe.arm.name}.yaml")),
        *("--pretrained-weights", str(checkpoint(output, probe.arm, recipe))),
        *("--output-dir", str(results)),
        *("--train-dataset", f"ImageNet:split=TRAIN:root={root}"),
        *("--val-dataset", f"ImageNet:split=VAL:root={root}"),
        *_options(probe.kind, recipe),
    ]
    _discard_interrupted(results)
    run(command, environment=environment, log=output / "logs" / f"{probe.kind}-{probe.arm.name}.txt")
    value, details = _read(probe.kind, results, recipe)
    n_images = len(np.load(f"{root}-extra/entries-VAL.npy", mmap_mode="r"))
    record = Record(
        arm=probe.arm.name,
        metric=f"{probe.kind}_top1",
        value=value,
        n_images=n_images,
        seed=int(recipe.content.training.train.seed),
        dataset=f"{probe.arm.evaluated_on} validation cells, {recipe.content.noise}",
        details=details,
        versions=versions(),
    )
    record.save(record_path)


def checkpoint(output: Path, arm: Arm, recipe: Recipe) -> Path:
    """The teacher that upstream wrote at the end of the arm's training; of the random network, before any step."""
    step = f"training_{recipe.iterations - 1}" if arm.stages else "manual_0"
    return run_folder(output, arm.name) / "eval" / step / "teacher_checkpoint.pth"


def _options(kind: str, recipe: Recipe) -> list[str]:
    settings = recipe.content.evaluation[kind]
    if kind == "knn":
        return ["--batch-size", str(settings.batch_size), "--nb_knn", *map(str, settings.nb_knn)]
    return [
        *("--batch-size", str(settings.batch_size), "--num-workers", "1"),
        *("--epochs", "1", "--epoch-length", str(settings.iterations), "--eval-period-iterations", "0", "--no-resume"),
        *("--learning-rates", *map(str, settings.learning_rates)),
    ]


def _read(kind: str, results: Path, recipe: Recipe) -> tuple[float, dict[str, Any]]:
    if kind == "knn":
        k = int(recipe.content.evaluation.knn.nb_knn[0])
        return read_knn(results / "results_eval_knn.json")[k], {"k": k}
    name, accuracy = read_linear(results / "results_eval_linear.json")
    return accuracy, {"classifier": name, "chosen": "the best head on the validation cells, as upstream chooses it"}


def _discard_interrupted(results: Path) -> None:
    """Upstream appends to its result file: one left by an interrupted probe must not be read."""
    for name in ("results_eval_knn.json", "results_eval_linear.json"):
        (results / name).unlink(missing_ok=True)
