"""Run folders, records and benchmark results for the report's tests, all written by code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise.evaluation.corruption_cells import CellResult
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.evaluation.records import Record

STAGES = [
    {"name": "denoised", "epochs": 3, "view": "denoised", "schedule_epochs": 5},
    {"name": "noisy", "epochs": 2, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
]
LENGTH = 10


def config(dataset: str = "ImageNet:split=TRAIN:root=gone", *, seed: int = 0, stages: Any = STAGES) -> dict[str, Any]:
    """What upstream saves of a run of 50 iterations, as far as the report reads it."""
    return {
        "train": {
            "dataset_path": dataset,
            "batch_size_per_gpu": 4,
            "OFFICIAL_EPOCH_LENGTH": LENGTH,
            "seed": seed,
            "output_dir": "somewhere",
        },
        "student": {"arch": "vit_tiny", "patch_size": 16},
        "teacher": {
            "momentum_teacher": 0.99,
            "final_momentum_teacher": 1,
            "warmup_teacher_temp": 0.04,
            "teacher_temp": 0.07,
            "warmup_teacher_temp_epochs": 1,
        },
        "dino": {"head_n_prototypes": 512},
        "crops": {"global_crops_size": 32, "local_crops_size": 16, "local_crops_number": 2},
        "optim": {
            "epochs": sum(stage["epochs"] for stage in stages),
            "base_lr": 0.004,
            "lr": 0.001,
            "min_lr": 1e-6,
            "warmup_epochs": 1,
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "freeze_last_layer_epochs": 0,
        },
        "curriculum": {"stages": stages},
    }


def entry(iteration: int, **values: float) -> dict[str, float]:
    """A line of ``training_metrics.json``."""
    usual = {"iter_time": 0.5, "data_time": 0.1, "total_loss": 9.0 - iteration / 10, "lr": 1e-3, "mom": 0.99}
    return {"iteration": iteration, **usual, **values}


def write_lines(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in entries), encoding="utf-8")


def write_run(
    folder: Path, content: Mapping[str, Any] | None = None, entries: Sequence[Mapping[str, Any]] | None = None
) -> Path:
    """A finished run of 50 iterations, logged every ten, unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(dict(config() if content is None else content)), folder / "config.yaml")
    usual = [entry(iteration) for iteration in (0, 10, 20, 30, 40, 49)]
    write_lines(folder / "training_metrics.json", usual if entries is None else entries)
    return folder


def write_monitor(folder: Path, iterations: Sequence[int] = (0, 20, 40), **further: float) -> None:
    """Measurements as a run with a section ``monitor`` writes them."""
    lines = []
    for number, iteration in enumerate(iterations):
        values = {"knn_top1/clean": 0.5 + number / 10, "knn_top1/noisy": 0.3 + number / 10, "rank_me/noisy": 9.0}
        values |= further
        counts = {"train": 20, "val": 10}
        lines.append(
            {"iteration": iteration, "stage": "denoised", "seconds": 1.0, "values": values, "n_images": counts}
        )
    write_lines(folder / "monitor.jsonl", lines)


def record(arm: str, value: float, seed: int = 0, **changes: Any) -> Record:
    """k-NN top-1 on 400 images, unless told otherwise."""
    usual: dict[str, Any] = {
        "metric": "knn_top1",
        "n_images": 400,
        "dataset": "ImageNet:split=VAL:root=/data/noisy",
        "versions": {"torch": "2"},
    }
    return Record(arm=arm, value=value, seed=seed, **{**usual, **changes})


def write_records(folder: Path, records: Sequence[Record]) -> list[Path]:
    paths = [folder / "records" / f"{number}-{one.seed}.json" for number, one in enumerate(records)]
    for path, one in zip(paths, records, strict=True):
        one.save(path)
    return paths


def summary(model: str, right: Mapping[str, int], dataset: str = "ImageNet:split=VAL:root=/data/clean") -> Summary:
    """Of a model that told so many of 100 images right, by cell."""
    cells = {}
    for name, count in right.items():
        text = dataset if name == "clean" else f"{dataset}:noise={name}"
        text = f"{dataset}:corruption={name}" if "/" in name else text
        cells[name] = CellResult(name, text, {"count": 100}, 100, {"knn20": count}, 0.0, 1.0, {})
    return Summary(model, {"weights": model}, cells, n_classes=10)
