"""The section on corruptions: heat maps and scores of `evaluate corruptions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dinov2_noise.evaluation import corruption_compare as compare
from dinov2_noise.evaluation.corruption_cells import CLEAN
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.report.corruption_figures import difference_map, heat_maps
from dinov2_noise.report.corruption_tables import title_of
from dinov2_noise.report.html import Block, FigureBlock, Missing, Section, Table

MOST_MODELS = 4
COMMAND = (
    "dinov2-noise evaluate corruptions --config-file RUN/config.yaml \\\n"
    "    --weights RUN/eval/training_…/teacher_checkpoint.pth --val-dataset ImageNet:split=VAL:root=… \\\n"
    "    --classifiers RUN/linear --output RUN/corruptions"
)


def robustness_section(summaries: Sequence[tuple[Path, Summary]]) -> Section:
    """Heat maps side by side, of two models their difference, and a table of scores, for each probe."""
    if not summaries:
        text = "No model has been evaluated on corrupted images: there is no summary.json."
        return Section("corruptions", "Corruptions", [Missing(text, COMMAND)])
    models = _by_name(summaries)
    blocks: list[Block] = []
    gaps = {name: model.missing for name, model in models.items() if model.missing}
    if gaps:
        listed = "; ".join(f"{name}: {', '.join(cells[:5])}" for name, cells in gaps.items())
        blocks.append(Missing(f"Cells that could not be had: {listed}.", COMMAND))
    for kind in dict.fromkeys(kind for model in models.values() for kind in model.kinds):
        own = {name: model for name, model in models.items() if kind in model.kinds}
        blocks += _of_probe(own, kind)
    return Section("corruptions", "Corruptions", blocks)


def _by_name(summaries: Sequence[tuple[Path, Summary]]) -> dict[str, Summary]:
    """Models by name, with their folder where two are alike."""
    names = [model.model for _, model in summaries]
    return {
        model.model if names.count(model.model) == 1 else f"{model.model} ({folder})": model
        for folder, model in summaries
    }


def _of_probe(models: Mapping[str, Summary], kind: str) -> list[Block]:
    values = {name: compare.accuracies(model, kind) for name, model in models.items()}
    drawn = {name: cells for name, cells in values.items() if cells}
    blocks: list[Block] = []
    probe = title_of(kind)
    for names in _parts(list(drawn)):
        part = {name: drawn[name] for name in names}
        clean = {name: models[name].cells[CLEAN].accuracy(kind) for name in names if CLEAN in models[name].cells}
        noises = {name: {n: models[name].cells[n].accuracy(kind) for n in models[name].noises} for name in names}
        png = heat_maps(part, clean=clean, noises=noises, probe=probe)
        alt = f"Heat map of top-1 accuracy per corruption and severity, {probe}, for {', '.join(names)}."
        blocks.append(FigureBlock(f"Accuracy per corruption and severity, {probe}", png, _CAPTION, alt))
    if len(drawn) == 2 and len({frozenset(cells) for cells in drawn.values()}) == 1:
        blocks.append(_difference(*drawn.items(), probe=probe))
    blocks.append(_table(models, kind))
    return blocks


_CAPTION = (
    "Top-1 accuracy in per cent. Corruptions that do not enter the mCE stand below a gap, and below another our "
    "noises, which have no severity."
)


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + MOST_MODELS] for start in range(0, len(names), MOST_MODELS)]


Named = tuple[str, Mapping[tuple[str, int], float]]


def _difference(first: Named, second: Named, *, probe: str) -> FigureBlock:
    title = f"{second[0]} minus {first[0]}, {probe}"
    points = {place: value - first[1][place] for place, value in second[1].items()}
    caption = "In points; blue: the second is better. A single cell's uncertainty is often larger than what it shows."
    return FigureBlock("", difference_map(points, title=title), caption, f"Heat map of differences, {title}.")


def _table(models: Mapping[str, Summary], kind: str) -> Table:
    rows = {name: next(iter(compare.rows_of([model], kind).values())) for name, model in models.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[name, *(compare.shown(row.get(column)) for column in columns)] for name, row in rows.items()]
    caption = f"Per cent. mCE (lower is better) is relative to {next(iter(models.values())).normalised_by}."
    return Table(["model", *columns], cells, caption, title=f"Scores, {title_of(kind)}")
