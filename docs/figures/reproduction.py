"""Records, tables and picture of docs/reproduction.md.

Usage: python docs/figures/reproduction.py WORKDIR   keeps the records of a finished repro_imagenette_cpu, then as below
       python docs/figures/reproduction.py           draws docs/img/reproduction.png and prints the tables
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dinov2_noise.evaluation.records import Record
from dinov2_noise.report.result_figures import spread_chart
from dinov2_noise.report.spread import Group, Place, difference

DOCS = Path(__file__).parent.parent
RECORDS = DOCS / "records" / "repro_imagenette_cpu"
NOISES = "gauss100", "gauss255"
ARMS = "noisy", "nc", "nct", "denoised"
METRICS = {"logistic_top1": "logistic regression", "knn_top1": "10 nearest neighbours"}
COMPARED = ("nc", "noisy"), ("nct", "noisy"), ("nct", "nc"), ("denoised", "noisy"), ("denoised", "nct")


def keep(workdir: Path) -> None:
    """Copy the records, with paths below the working folder instead of those of the machine."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    for path in sorted(workdir.glob("runs/*/probes/records/*.json")):
        record = Record.load(path)
        if record.metric in METRICS:
            text = json.dumps({"dataset": record.dataset, "details": dict(record.details)})
            kept = json.loads(text.replace(f"{workdir.resolve()}/", ""))
            run = path.parents[2].name
            replace(record, **kept).save(RECORDS / f"{run}-{record.metric}.json")


def groups(metric: str) -> dict[Place, Sequence[Group]]:
    """By noise: the denoised arm, measured on denoised images, stands beside the others."""
    found = [Record.load(path) for path in sorted(RECORDS.glob(f"*-{metric}.json"))]
    return {place: list(_arms(place, found)) for place in (Place(metric, noise) for noise in NOISES)}


def _arms(place: Place, records: Sequence[Record]) -> Iterator[Group]:
    for arm in ARMS:
        own = [record for record in records if record.arm == arm and _noise(record) == place.shown]
        if own:
            yield Group(arm, place, own)


def _noise(record: Record) -> str:
    """Of the folder: ``gauss100`` and ``gauss100-denoised`` are both of gauss100."""
    return record.dataset.rsplit("root=", 1)[1].split("-")[0]


def floors(own: Sequence[Group]) -> dict[str, float]:
    """Of the noisy images, by the same probe; the first seed was probed with --random-floor."""
    given: Mapping[str, Any] = next(group for group in own if group.arm == "noisy").records[0].details["floors"]
    return {"chance": given["chance"], "random network": given["random"], "colour alone": given["colour"]}


def result_table() -> str:
    """Accuracy in %, mean ± standard deviation over seeds, and the 95 % interval over images."""
    cells = {metric: groups(metric) for metric in METRICS}
    lines = [f"| noise | arm | {' | '.join(METRICS.values())} |", "|---|---|---|---|"]
    for noise in NOISES:
        for arm in ARMS:
            row = [_cell(cells[metric][Place(metric, noise)], arm) for metric in METRICS]
            lines.append(f"| {noise} | {arm} | {' | '.join(row)} |")
        below = [floors(cells[metric][Place(metric, noise)]) for metric in METRICS]
        for name in below[0]:
            lines.append(f"| {noise} | *{name}* | {' | '.join(f'{100 * values[name]:.1f}' for values in below)} |")
    return "\n".join(lines)


def _cell(own: Sequence[Group], arm: str) -> str:
    group = next(group for group in own if group.arm == arm)
    low, high = group.interval
    return f"{100 * group.mean:.1f} ± {100 * (group.deviation or 0):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def difference_table() -> str:
    """Differences in percentage points with their 95 % interval over images and trainings."""
    lines = [f"| noise | difference | {' | '.join(METRICS.values())} |", "|---|---|---|---|"]
    for noise in NOISES:
        for one, other in COMPARED:
            row = [_difference(groups(metric)[Place(metric, noise)], one, other) for metric in METRICS]
            lines.append(f"| {noise} | {one} − {other} | {' | '.join(row)} |")
    return "\n".join(lines)


def _difference(own: Sequence[Group], one: str, other: str) -> str:
    first, second = (next(group for group in own if group.arm == arm) for arm in (one, other))
    found = difference(first, second)
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})".replace("-", "−")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    places = groups("logistic_top1")
    picture = spread_chart(places, {place: floors(own) for place, own in places.items()})
    (DOCS / "img" / "reproduction.png").write_bytes(picture)
    print(result_table(), difference_table(), sep="\n\n")
