"""The section on results: tables over seeds, and a chart of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from dinov2_noise.report.figures import NARROW_WIDTH_PX, SHOWN_WIDTH_PX
from dinov2_noise.report.floor_rows import Floors, matching
from dinov2_noise.report.html import Block, Cell, FigureBlock, Missing, Section, Table, Text
from dinov2_noise.report.result_figures import spread_chart
from dinov2_noise.report.spread import Group, Place, best

METRICS = {
    "knn_top1": "k-NN top-1",
    "linear_top1": "Linear probe top-1",
    "logistic_top1": "Logistic regression top-1",
}
_KNN = re.compile(r"knn(\d+)_top1")
_FURTHER = ("_top5", "_macro_f1", "_balanced_accuracy")
"""Ends of metrics that stand folded below the top-1 accuracy of the same probe."""
_MOST_ROWS = 26  # of a chart
COMMAND = (
    "dinov2-noise evaluate linear --help\ndinov2-noise evaluate knn --help\n"
    "dinov2-noise run RECIPE.yaml    # trains, probes and writes records"
)
HOW_BEST = (
    "“best” marks an arm whose difference to each other arm on the same images has a 95 % interval above zero. The "
    "interval holds the sampling of images (arms counted as independent, which is too wide rather than too narrow) and "
    "the spread over seeds (Welch), with Bonferroni's correction for the number of comparisons. “best on these images” "
    "says the same where an arm has one training only: the spread between trainings is then unknown and not in it."
)


def metric_title(metric: str) -> str:
    """In words, with what its unit is on the page."""
    neighbours = _KNN.fullmatch(metric)
    if neighbours:
        return f"{neighbours[1]}-NN top-1"
    known = METRICS.get(metric)
    if known is not None:
        return known
    text = metric.replace("_", " ")
    for plain, usual in (("top1", "top-1"), ("top5", "top-5"), ("macro f1", "macro F1")):
        text = text.replace(plain, usual)
    return text[:1].upper() + text[1:]


def is_further(metric: str, metrics: Collection[str]) -> bool:
    """Whether another of ``metrics`` is the same probe's top-1 accuracy, which is what to look at first."""
    return any(metric == f"{other.removesuffix('_top1')}{end}" for other in metrics for end in _FURTHER)


def by_metric(groups: Mapping[Place, Sequence[Group]]) -> dict[str, dict[Place, Sequence[Group]]]:
    """Metrics in order of first appearance, known ones first."""
    found: dict[str, dict[Place, Sequence[Group]]] = {}
    metrics = {place.metric for place in groups}
    known = list(METRICS)
    rank = {metric: known.index(metric) if metric in known else len(known) for metric in metrics}
    for metric in sorted(metrics, key=lambda metric: (is_further(metric, metrics), rank[metric], metric)):
        found[metric] = {place: own for place, own in groups.items() if place.metric == metric}
    return found


def results_section(groups: Mapping[Place, Sequence[Group]], floors: Sequence[Floors]) -> Section:
    """A table and a chart per metric."""
    if not groups:
        text = "No records: no evaluation of the folders' runs has been kept as records/*.json."
        return Section("results", "Results", [Missing(text, COMMAND)])
    blocks: list[Block] = []
    for metric, places in by_metric(groups).items():
        title = metric_title(metric)
        shown = {place: [group for group in own if not group.is_floor] or own for place, own in places.items()}
        n_rows = sum(len(own) for own in places.values())
        folded = is_further(metric, {place.metric for place in groups})
        if n_rows <= _MOST_ROWS and not folded:
            blocks.append(_chart(title, shown, floor_lines(places, floors)))
        blocks.append(_table(title, places, floors, folded=folded))
    if len(groups) > 1 or any(len(own) > 1 for own in groups.values()):
        blocks.append(Text(HOW_BEST))
    return Section("results", "Results", blocks)


def _chart(
    title: str, places: Mapping[Place, Sequence[Group]], floors: Mapping[Place, Mapping[str, float]]
) -> FigureBlock:
    wide, narrow = (spread_chart(places, floors, width_px=2 * width) for width in (SHOWN_WIDTH_PX, NARROW_WIDTH_PX))
    arms = ", ".join(dict.fromkeys(group.arm for own in places.values() for group in own))
    alt = f"{title} of {arms}, with intervals; all numbers are in the table below."
    return FigureBlock(title, wide, _CHART_CAPTION, alt, is_chart=True, narrow=narrow)


_CHART_CAPTION = (
    "Large dots: means over seeds; bars: 95 % interval over images; small dots: single seeds, where there are several. "
    "Dotted lines: floors that need no network."
)


def floor_lines(places: Mapping[Place, Sequence[Group]], floors: Sequence[Floors]) -> dict[Place, dict[str, float]]:
    """Floors by place: records of floors, else computed ones; only of accuracies."""
    found = {}
    for place, own in places.items():
        lines = _recorded_floors(own) | {group.arm: group.mean for group in own if group.is_floor}
        computed = matching(place.shown, floors) if place.metric.endswith("top1") and not lines else None
        found[place] = lines if computed is None else dict(computed.values)
    return found


def _recorded_floors(own: Sequence[Group]) -> dict[str, float]:
    """Of the records' details: the same for all arms, as they are of the images or of a network without training."""
    found: dict[str, list[float]] = {}
    for record in (record for group in own for record in group.records):
        floors = record.details.get("floors")
        for name, value in floors.items() if isinstance(floors, Mapping) else ():
            if isinstance(value, int | float):
                found.setdefault(_FLOOR_NAMES.get(str(name), str(name)), []).append(float(value))
    return {name: fmean(values) for name, values in found.items()}


_FLOOR_NAMES = {"colour": "colour alone", "colours": "colour alone", "random": "random network"}


def _table(
    title: str, places: Mapping[Place, Sequence[Group]], floors: Sequence[Floors], *, folded: bool = False
) -> Table:
    rows: list[list[str | Cell]] = []
    headings, faint = [], []
    lines = floor_lines(places, floors)
    for place, own in places.items():
        headings.append((len(rows), place.shown))
        winner = best(own)
        arms = sorted((group for group in own if not group.is_floor), key=lambda group: -group.mean)
        for group in arms:
            rows.append(_row(group, _badge(group, winner)))
        for name, value in lines[place].items():
            faint.append(len(rows))
            rows.append([name, f"{100 * value:.1f}", "–", "–", "–", "–"])
    columns = ["arm", "mean (%)", "sd over seeds", "seeds", "95 % over images", "images"]
    many = any(group.n_seeds > 1 for own in places.values() for group in own)
    caption = (
        "Mean and standard deviation (n − 1) over seeds of the training."
        if many
        else "One training each: there is no spread over seeds to show."
    )
    caption += " The interval is over images (Wilson, or as the record has it); more seeds do not narrow it."
    return Table(columns, rows, caption, title=f"{title}, all numbers", groups=headings, faint=faint, folded=folded)


def _badge(group: Group, winner: tuple[Group, bool] | None) -> str:
    if winner is None or winner[0] is not group:
        return ""
    return "best" if winner[1] else "best on these images"


def _row(group: Group, badge: str) -> list[str | Cell]:
    low, high = group.interval
    deviation = "–" if group.deviation is None else f"{100 * group.deviation:.1f}"
    seeds = str(group.n_seeds)
    interval = f"{100 * low:.1f} to {100 * high:.1f}"
    return [group.arm, Cell(f"{100 * group.mean:.1f}", badge), deviation, seeds, interval, f"{group.n_images:,}"]
