"""What the probes found: one record each, and a table of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.table import Table

from dinov2_noise.data import default_extra, make, parse_dataset_string
from dinov2_noise.errors import DinoNoiseError, MetadataError
from dinov2_noise.evaluation.corruption_compare import accuracies, rows_of
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.evaluation.records import Record, versions
from dinov2_noise.evaluation.upstream_results import read_knn, read_linear
from dinov2_noise.recipes.corruption_step import CorruptionsStep
from dinov2_noise.recipes.own_probe_steps import OwnProbeStep
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.upstream_steps import KnnStep, ProbeStep


def record_path(plan: Plan, name: str) -> Path:
    """Where the result of probe ``name`` is kept."""
    probe = plan.step(name)
    if isinstance(probe, OwnProbeStep):
        return probe.results
    return plan.recipe.workdir / "records" / f"{name}.json"


def save_record(plan: Plan, name: str, probe: ProbeStep) -> None:
    """Read what upstream wrote and keep it as a record; our own probes have written theirs.

    Raises:
        DinoNoiseError: there is no result, or it cannot be read.
    """
    if isinstance(probe, OwnProbeStep):
        return
    run = plan.run_of(probe)
    metric, value, details = _read(probe)
    config = OmegaConf.load(Path(run.output) / "config.yaml")
    Record(
        arm=probe.arm or probe.of,
        metric=metric,
        value=value,
        n_images=_n_images(probe.dataset("VAL")),
        seed=int(OmegaConf.select(config, "train.seed", default=0)),
        dataset=probe.dataset("VAL"),
        details={"recipe": plan.recipe.name, "config": run.config, "weights": str(run.teacher), **details},
        versions=versions(),
    ).save(record_path(plan, name))


def results_table(plan: Plan) -> Table | None:
    """All results that are there, in the order of the recipe; None where there is none yet."""
    table = Table("arm", "metric", "probed on", "top-1 (%)", "95 % interval", "images")
    for name in plan.order:
        probe = plan.step(name)
        if not isinstance(probe, ProbeStep) or plan.status(name).state != DONE or not record_path(plan, name).exists():
            continue
        record = Record.load(record_path(plan, name))
        low, high = record.interval()
        images = parse_dataset_string(record.dataset).root.name
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        table.add_row(record.arm, record.metric, images, f"{100 * record.value:.1f}", interval, str(record.n_images))
    return table if table.row_count else None


def _read(probe: ProbeStep) -> tuple[str, float, dict[str, Any]]:
    if isinstance(probe, CorruptionsStep):
        return _read_corruptions(probe)
    if isinstance(probe, KnnStep):
        by_k = read_knn(probe.results)
        k = probe.nb_knn[0]
        if k not in by_k:
            raise DinoNoiseError(f"{probe.results} holds no accuracy of {k} neighbours, the first of nb_knn")
        return "knn_top1", by_k[k], {"k": k, "top1_by_k": {str(key): value for key, value in by_k.items()}}
    name, accuracy = read_linear(probe.results)
    chosen = "the best head on the validation images, as upstream chooses it"
    return "linear_top1", accuracy, {"classifier": name, "chosen": chosen}


def _read_corruptions(probe: CorruptionsStep) -> tuple[str, float, dict[str, Any]]:
    """Mean accuracy over all measured cells of corruptions; the scores are in the details."""
    summary = Summary.load(Path(probe.output))
    kind = summary.kinds[0]
    values = list(accuracies(summary, kind).values())
    if not values:
        raise DinoNoiseError(f"{probe.results} holds no corruption: ask for some with `corruptions`")
    details = {
        "averaged over": f"{len(values)} cells of {len(summary.corruptions)} corruptions",
        "missing": list(summary.missing),
        "classifier": summary.classifier,
        "per_cent": {probed: rows_of([summary], probed)[summary.model] for probed in summary.kinds},
        "mCE normalised by": summary.normalised_by,
    }
    return f"corruptions_{kind}_top1", sum(values) / len(values), details


def _n_images(dataset: str) -> int:
    spec = parse_dataset_string(dataset)
    if spec.split is None or spec.subset is not None:
        return len(make(dataset))  # type: ignore[arg-type]
    path = (spec.extra or default_extra(spec.root)) / f"entries-{spec.split}.npy"
    try:
        return len(np.load(path, mmap_mode="r"))
    except OSError as cause:
        raise MetadataError(f"cannot count the images of {dataset}: {cause}") from cause
