"""The section on noise: accuracy against the signal-to-noise ratio of the images, one line per arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.corruption_cells import CLEAN
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.evaluation.records import Record
from dinov2_noise.evaluation.runs import located
from dinov2_noise.evaluation.snr import snr_of_dataset
from dinov2_noise.report.curve_figures import Line, Panel, sweep
from dinov2_noise.report.figures import ARM_COLOURS, NARROW_WIDTH_PX
from dinov2_noise.report.html import Block, FigureBlock, Missing, Section
from dinov2_noise.report.images import opened, without_noise
from dinov2_noise.report.results import is_further, metric_title

SNR_IMAGES = 64
"""Images that a noise's signal-to-noise ratio is computed on."""
COMMAND = (
    "dinov2-noise evaluate linear --help     # --noise gauss50,gauss100,gauss255 and others\n"
    "dinov2-noise evaluate corruptions --noises gauss50,gauss100,gauss255 …"
)

Snr = Callable[[str, str], float | None]
"""(dataset string of the clean images, noise) → dB; None where the images are not there."""


@dataclass(frozen=True)
class Point:
    """One accuracy under one noise. ``snr_db``: None for clean images."""

    arm: str
    metric: str
    seed: int
    noise: str
    snr_db: float | None
    value: float
    error: float


def points_of(
    records: Sequence[tuple[Path, Record]], summaries: Sequence[tuple[Path, Summary]], snr: Snr
) -> list[Point]:
    """All that is known by noise: records with ``snr_db`` in their details, and noise cells of corruption benchmarks.

    A noise whose ratio is not known, because its images are not there, has NaN.
    """
    found = []
    metrics = {record.metric for _, record in records}
    for _, record in records:
        if "snr_db" in record.details and not is_further(record.metric, metrics):
            ratio = record.details["snr_db"]
            noise = str(record.details.get("noise", CLEAN if ratio is None else f"{ratio:.1f} dB"))
            found.append(_point(record, noise, None if noise == CLEAN else _or_nan(ratio)))
    for folder, summary in summaries:
        for cell in [name for name in (CLEAN, *summary.noises) if name in summary.cells]:
            clean = located(without_noise(summary.cells[cell].dataset), folder)
            ratio = None if cell == CLEAN else _or_nan(snr(clean, cell))
            found += [_point(summary.record(cell, kind), cell, ratio) for kind in summary.kinds]
    return _filled(found)


def _filled(points: Sequence[Point]) -> list[Point]:
    """With the ratio of the same noise elsewhere where that of a point is not known."""
    known: dict[str, list[float]] = {}
    for point in points:
        if point.snr_db is not None and math.isfinite(point.snr_db):
            known.setdefault(point.noise, []).append(point.snr_db)
    return [
        replace(point, snr_db=fmean(known[point.noise]))
        if point.snr_db is not None and math.isnan(point.snr_db) and point.noise in known
        else point
        for point in points
    ]


def _point(record: Record, noise: str, ratio: float | None) -> Point:
    """Denoised images stand at the ratio of the noisy ones, on a line of their own."""
    metric = _measured(record, noise)
    ratio = None if ratio is not None and math.isinf(ratio) else ratio
    plain = noise.removesuffix(_DENOISED)
    arm = record.arm if plain == noise else f"{record.arm} (on denoised images)"
    return Point(arm, metric, record.seed, plain, ratio, record.value, record.standard_error)


_DENOISED = "-denoised"  # see evaluation.stored_noise


def _measured(record: Record, noise: str) -> str:
    """The metric, with what of the probe or the set makes it another one."""
    text, details = metric_title(record.metric), record.details
    text += f", {details['set']}" if "set" in details else ""
    text += f", k = {details['k']}" if "k" in details else ""
    return text + (f", trained on {details['train_noise']}" if details.get("train_noise", noise) != noise else "")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def cached_snr() -> Snr:
    """Ratios computed from the images, each once."""
    known: dict[tuple[str, str], float | None] = {}

    def snr(dataset: str, noise: str) -> float | None:
        if (dataset, noise) not in known:
            try:
                rows = np.arange(len(opened(dataset)), dtype=np.int64)
                known[dataset, noise] = snr_of_dataset(f"{dataset}:noise={noise}", rows, SNR_IMAGES)
            except (DinoNoiseError, OSError):
                known[dataset, noise] = None
        return known[dataset, noise]

    return snr


def sweep_section(points: Sequence[Point]) -> Section:
    """One panel per metric; of arms that were measured under at least two noises, clean images being one."""
    title = "Accuracy against noise"
    by_metric = {metric: [point for point in points if point.metric == metric] for metric in _metrics(points)}
    enough = {metric: own for metric, own in by_metric.items() if len({point.noise for point in own}) > 1}
    if not enough:
        text = "No arm has been evaluated under several noises."
        return Section("noise", title, [Missing(text, COMMAND)])
    shown = [point for own in enough.values() for point in own]
    is_nominal = any(point.snr_db is not None and math.isnan(point.snr_db) for point in shown)
    places = _nominal(shown) if is_nominal else _in_db(shown)
    ticks = {place: _tick(noise, place, is_nominal=is_nominal) for noise, place in places.items()}
    arms = list(dict.fromkeys(point.arm for point in shown))
    drawn = [Panel(metric, _lines(own, arms, places), {}, True) for metric, own in enough.items()]
    label = "noise, in order of name" if is_nominal else "signal-to-noise ratio (dB)"
    picture = sweep(drawn, ticks=ticks, label=label)
    narrow = sweep(drawn, ticks=ticks, label=label, width_px=2 * NARROW_WIDTH_PX)
    alt = f"Accuracy of {', '.join(arms)} against noise: {', '.join(places)}."
    caption = _caption(is_nominal=is_nominal)
    blocks: list[Block] = [FigureBlock("", picture, caption, alt, is_chart=True, narrow=narrow)]
    return Section("noise", title, blocks)


def _caption(*, is_nominal: bool) -> str:
    band = "Bands: ± one standard deviation over seeds, or with one training ± one standard error over images. "
    if is_nominal:
        return band + "The images are not at hand, so that noises stand in order of their names, not at their ratio."
    return band + (
        "The ratio is 10 log10(E[x²] / E[(y − x)²]) of clean images x and noisy ones y, after clipping; the mean over "
        "images. Denoised images stand at the ratio of the noisy ones. Clean images stand at the right end, apart from "
        "the scale. Where arms were trained on the noise they are shown at, each point of a line is another training."
    )


def _metrics(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.metric for point in points))


def _in_db(points: Sequence[Point]) -> dict[str, float]:
    """Noise → place; one mean ratio per noise, and clean images right of all."""
    found: dict[str, list[float]] = {}
    for point in points:
        if point.snr_db is not None:
            found.setdefault(point.noise, []).append(point.snr_db)
    places = {noise: fmean(ratios) for noise, ratios in found.items()}
    if any(point.snr_db is None for point in points):
        span = max(places.values(), default=0.0) - min(places.values(), default=0.0)
        places[CLEAN] = max(places.values(), default=0.0) + max(0.25 * span, 1.0)
    return dict(sorted(places.items(), key=lambda item: item[1]))


def _nominal(points: Sequence[Point]) -> dict[str, float]:
    """Strong noises left; only names tell: families together, by their first level."""
    noises = {point.noise for point in points if point.snr_db is not None}
    ordered = sorted(noises, key=_strength)
    places = {noise: float(place) for place, noise in enumerate(ordered)}
    if any(point.snr_db is None for point in points):
        places[CLEAN] = float(len(ordered))
    return places


def _strength(noise: str) -> tuple[str, float]:
    family = noise.rstrip("0123456789._-")
    level = noise[len(family) :].split("_")[0].split("-")[0]
    sign = 1.0 if family in ("shot", "gamma", "poissongauss") else -1.0  # photons and looks: the more, the weaker
    try:
        return family, sign * float(level)
    except ValueError:
        return family, 0.0


def _tick(noise: str, place: float, *, is_nominal: bool) -> str:
    return noise if is_nominal or noise == CLEAN else f"{place:.1f}\n{noise}".replace("-", "−", 1 if place < 0 else 0)


def _lines(points: Sequence[Point], arms: Sequence[str], places: Mapping[str, float]) -> list[Line]:
    found = []
    for number, arm in enumerate(arms):
        own = [point for point in points if point.arm == arm]
        noises = [noise for noise in places if any(_stands_at(point, noise) for point in own)]
        if not noises:
            continue
        means, spreads = zip(*(_mean([p for p in own if _stands_at(p, noise)]) for noise in noises), strict=True)
        x = [places[noise] for noise in noises]
        band: dict[str, Any] = {
            "low": [100 * (mean - spread) for mean, spread in zip(means, spreads, strict=True)],
            "high": [100 * (mean + spread) for mean, spread in zip(means, spreads, strict=True)],
        }
        y = [100 * mean for mean in means]
        found.append(Line(arm, number % len(ARM_COLOURS), number // len(ARM_COLOURS), x, y, **band))
    return found


def _stands_at(point: Point, noise: str) -> bool:
    return noise == CLEAN if point.snr_db is None else point.noise == noise


def _mean(points: Sequence[Point]) -> tuple[float, float]:
    """Mean over seeds and the half-width of its band."""
    values = [point.value for point in points]
    return fmean(values), stdev(values) if len(values) > 1 else points[0].error
