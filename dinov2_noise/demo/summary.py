"""The demo's last step: the table on the terminal, as CSV, and the HTML report."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table as ConsoleTable

from dinov2_noise.data import NoisyImageNet, make
from dinov2_noise.demo.recipe import Arm, Recipe, run_folder
from dinov2_noise.evaluation.floors import chance, mean_colour_knn, psnr_db
from dinov2_noise.evaluation.records import Record
from dinov2_noise.evaluation.upstream_results import read_training
from dinov2_noise.files import atomic_path, list_images
from dinov2_noise.report.collect import collect
from dinov2_noise.report.compose import NOTES, Request, compose
from dinov2_noise.report.features import Settings
from dinov2_noise.report.figures import accuracy_chart, contact_sheet
from dinov2_noise.report.html import FigureBlock, Page, Section, Table, write_page
from dinov2_noise.upstream import preview

_METRICS = {"knn_top1": "k-NN top-1", "linear_top1": "linear top-1"}
_SHOWN_CLASSES = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "ihc", "rocket")


def write_summary(output: Path, recipe: Recipe, random: Arm) -> Path:
    """Print the table, write ``results.csv`` and ``report.html``; returns the path of the report."""
    arms = [*recipe.arms, random]
    records = [_record(output, arm, metric) for arm in arms for metric in _METRICS]
    floors = _floors(output)
    table = _table(output, recipe, arms, records, floors)
    _print(table)
    with atomic_path(output / "results.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([table.columns, *table.rows])
    path = output / "report.html"
    write_page(path, _page(output, recipe, records, floors, table))
    return path


def _page(output: Path, recipe: Recipe, records: Sequence[Record], floors: dict[str, float], table: Table) -> Page:
    """The report of the output folder, with the demo's own words, table and pictures at its beginning."""
    n_images = records[0].n_images  # all validation cells: few enough to look for neighbours among them
    request = Request([output], settings=Settings(n_candidates=n_images))
    page = compose(collect([output]), request, lambda text: Console(stderr=True).print(f"report: {text}", markup=False))
    own = Section("demo", "The demo in one table", [table, *_figures(output, recipe, records, floors)])
    return replace(
        page,
        title="Noisy photographs to features that cope with noise",
        summary=_summary(recipe, records),
        facts=_facts(output, recipe) | {"Versions": page.facts["Versions"]},
        sections=[own, *page.sections],
        notes=[*_notes(recipe), *NOTES],
    )


def _record(output: Path, arm: Arm, metric: str) -> Record:
    return Record.load(output / "records" / f"{arm.name}-{metric.removesuffix('_top1')}.json")


def _dataset(output: Path, kind: str, split: str) -> NoisyImageNet:
    dataset = make(f"ImageNet:split={split}:root={output / kind}", None, None)
    assert isinstance(dataset, NoisyImageNet)
    return dataset


def _floors(output: Path) -> dict[str, float]:
    """Accuracies that need no network, on the noisy cells."""
    train, val = _dataset(output, "noisy", "TRAIN"), _dataset(output, "noisy", "VAL")
    images = [[np.asarray(part.noisy(i)) for i in range(len(part))] for part in (train, val)]
    labels = [[int(part.get_target(i) or 0) for i in range(len(part))] for part in (train, val)]
    return {
        "chance": chance(labels[0], labels[1]),
        "mean colour, k-NN": mean_colour_knn(images[0], labels[0], images[1], labels[1]),
    }


def _step_seconds(output: Path, arm: Arm, recipe: Recipe) -> str:
    """Median seconds per step in the arm's last stage."""
    length = int(recipe.content.training.train.OFFICIAL_EPOCH_LENGTH)
    first = arm.switch_epochs[-1][0] * length if arm.switch_epochs else 0
    entries = [
        entry
        for entry in read_training(run_folder(output, arm.name) / "training_metrics.json")
        if entry["iteration"] > first
    ]
    return f"{np.median([entry['iter_time'] for entry in entries]):.2f} s"


def _table(
    output: Path, recipe: Recipe, arms: Sequence[Arm], records: Sequence[Record], floors: dict[str, float]
) -> Table:
    rows = []
    for arm in arms:
        own = {record.metric: record for record in records if record.arm == arm.name}
        cells = [f"{100 * own[metric].value:.1f} ± {100 * own[metric].standard_error:.1f}" for metric in _METRICS]
        seconds = _step_seconds(output, arm, recipe) if arm.stages else "–"
        rows.append([arm.title, arm.evaluated_on, *cells, seconds])
    rows += [[name, "noisy", f"{100 * value:.1f}", "–", "–"] for name, value in floors.items()]
    n_images = records[0].n_images
    return Table(
        columns=["arm", "probed on", *(f"{title} (%)" for title in _METRICS.values()), "per step"],
        rows=rows,
        caption=f"Accuracy on {n_images} validation cells, ± one standard error; seconds per step in the last stage.",
    )


def _print(table: Table) -> None:
    shown = ConsoleTable(*table.columns, caption=table.caption)
    for row in table.rows:
        shown.add_row(*map(str, row))
    Console().print(shown)


def _summary(recipe: Recipe, records: Sequence[Record]) -> str:
    knn = {record.arm: record for record in records if record.metric == "knn_top1"}
    baseline, anchored, random = (knn[name] for name in ("noisy", "nct", "random"))
    spread = math.hypot(anchored.standard_error, baseline.standard_error)
    gap = anchored.value - baseline.value
    verdict = "more than" if abs(gap) > 2 * spread else "not more than"
    return (
        f"Four ways to pretrain DINOv2 on {recipe.content.noise} photographs, {recipe.iterations} steps each, probed "
        f"by upstream's own scripts. k-NN on noisy cells: NCT {100 * anchored.value:.1f}\u00a0%, NC "
        f"{100 * knn['nc'].value:.1f}\u00a0%, plain DINOv2 {100 * baseline.value:.1f}\u00a0%, an untrained network "
        f"{100 * random.value:.1f}\u00a0%.\n\n"
        f"NCT and plain DINOv2 differ by {100 * gap:+.1f} points, {verdict} twice the standard error of that, "
        f"{100 * spread:.1f}. One seed and minutes of training show the path, not a ranking of the methods."
    )


def _psnr(output: Path, kind: str) -> float:
    names = [name for name in list_images(output / "clean") if name.startswith("val/")]
    pairs = (
        (np.asarray(Image.open(output / folder / name).convert("RGB")) for folder in ("clean", kind)) for name in names
    )
    return float(np.mean([psnr_db(*pair) for pair in pairs]))


def _facts(output: Path, recipe: Recipe) -> dict[str, str]:
    training = recipe.content.training
    counts = [len(_dataset(output, "noisy", split)) for split in ("TRAIN", "VAL")]
    return {
        "Images": f"{counts[0]} training, {counts[1]} validation cells of 64 px, from other parts of 12 photographs",
        "Noise": f"{recipe.content.noise}, fixed per image, clipped and stored as 8 bit",
        "PSNR of validation": f"noisy {_psnr(output, 'noisy'):.1f} dB, denoised {_psnr(output, 'denoised'):.1f} dB",
        "Network": f"{training.student.arch}/{training.student.patch_size}, batch {training.train.batch_size_per_gpu}",
        "Steps per arm": str(recipe.iterations),
        "Denoiser": f"Neighbor2Neighbor, {recipe.content.denoiser.steps} steps on the noisy cells",
    }


def _figures(output: Path, recipe: Recipe, records: Sequence[Record], floors: dict[str, float]) -> list[FigureBlock]:
    titles = {arm.name: arm.title for arm in recipe.arms} | {"random": "random network"}
    shown = [_with_title(record, titles[record.arm]) for record in records]
    return [
        FigureBlock(
            "What the model sees",
            _contact_sheet(output, recipe),
            "Cells before and after noise and denoiser, and the crops of one step of NCT's noisy stage: the "
            "student sees the noisy "
            "crops, the frozen teacher the denoised twins of the global ones, cut, flipped and coloured alike.",
            "Contact sheet: clean, noisy and denoised cells, and the crops made of them.",
        ),
        FigureBlock(
            "Accuracy on validation cells",
            accuracy_chart(shown, floors),
            "Dots with 95 % intervals (Wilson). The denoiser-kept arm is probed on denoised cells, all others "
            "on noisy ones.",
            "Chart of k-NN and linear accuracy per arm, with chance and the colour-only floor.",
            is_chart=True,
        ),
    ]


def _with_title(record: Record, title: str) -> Record:
    return replace(record, arm=title, metric=_METRICS[record.metric])


def _contact_sheet(output: Path, recipe: Recipe) -> bytes:
    nct = recipe.arms[-1]
    noisy = _dataset(output, "noisy", "TRAIN")
    names = [noisy.relative_path(i) for i in range(len(noisy))]
    rows = []
    for name in _SHOWN_CLASSES:
        own = [i for i, path in enumerate(names) if path.startswith(f"train/{name}/")]
        chosen = own[len(own) // 2]
        crops = preview.crops(
            output / "configs" / f"{nct.name}.yaml", index=chosen, stage=len(nct.stages) - 1, number=chosen
        )
        before = [Image.open(output / kind / names[chosen]).convert("RGB") for kind in ("clean", "noisy", "denoised")]
        rows.append([*before, crops["global_crops"][0], crops["global_crops_anchor"][0], *crops["local_crops"][:2]])
    columns = [
        "clean",
        "noisy",
        "denoised",
        "student:\nglobal crop",
        "frozen teacher:\nits twin",
        "student:\nlocal crop",
        "student:\nlocal crop",
    ]
    return contact_sheet(columns, rows, list(_SHOWN_CLASSES))


def _notes(recipe: Recipe) -> list[str]:
    heads = 4 * len(recipe.content.evaluation.linear.learning_rates)
    return [
        "The class of a cell is the picture it was cut from; training and validation cells come from different "
        "parts of it.",
        f"Linear top-1 is the best of {heads} heads on the validation cells themselves, as upstream's "
        "linear.py chooses it: optimistic, for "
        "every arm and for the random network alike.",
        "Probes resize a cell to 224 px, as upstream does; pretraining sees 64 px.",
        "The published recipe needs days; this one differs from it (layerscale 1, Sinkhorn, 512 prototypes, "
        "short warm-ups) because the "
        "published settings do not leave their uniform loss within minutes.",
    ]
