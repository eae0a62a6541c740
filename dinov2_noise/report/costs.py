"""The section on costs: time per stage as logged, waiting for images, memory, and counted arithmetic."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.report.html import Block, Cell, Missing, Section, Table
from dinov2_noise.report.runs import Run, StageSpan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageTime:
    """What a stage took so far.

    Attributes:
        n_iterations: done, as far as the log tells. seconds: of them. waiting_s: of these, waiting for images.
    """

    stage: StageSpan
    n_iterations: int
    seconds: float
    waiting_s: float

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / self.n_iterations


def times_of(run: Run) -> list[StageTime]:
    """From ``training_metrics.json``: an entry's means count for the iterations since the entry before.

    The start of the program, checkpoints and evaluations between iterations are not in it.
    """
    seconds: dict[StageSpan, list[float]] = {}
    before = -1
    for entry in run.training:
        iteration, step, data = entry["iteration"], entry.get("iter_time"), entry.get("data_time", 0.0)
        if not isinstance(step, int | float) or not isinstance(data, int | float):
            continue
        for number in range(before + 1, iteration + 1):
            stage = run.stage_at(number)
            if stage is not None:
                total = seconds.setdefault(stage, [0, 0.0, 0.0])
                total[0] += 1
                total[1] += step
                total[2] += data
        before = max(before, iteration)
    return [StageTime(stage, int(count), total, waiting) for stage, (count, total, waiting) in seconds.items()]


def costs_section(runs: Sequence[Run]) -> Section:
    """A row per run and stage."""
    timed = {run.name: (run, times_of(run)) for run in runs}
    timed = {name: both for name, both in timed.items() if both[1]}
    if not timed:
        text = "No run has logged the time of its steps."
        return Section("costs", "Costs", [Missing(text, "dinov2-noise train CONFIG --estimate")])
    rows: list[Sequence[str | Cell]] = []
    headings, lacking = [], []
    counted: dict[str, dict[str, float] | None] = {}
    for run, times in timed.values():
        headings.append((len(rows), run.name + ("" if run.is_finished else f" ({run.state})")))
        key = repr([run.get(name) for name in _DECIDING])
        flops = counted[key] if key in counted else counted.setdefault(key, _flops(run))
        if flops is None:
            lacking.append(run.name)
        rows += [_row(run, time, (flops or {}).get(time.stage.name)) for time in times]
        if len(times) > 1:
            rows.append(_total(run, times, flops))
    columns = [
        "stage",
        "iterations",
        "time",
        "s per step",
        "images/s",
        "waiting for images",
        "GPU memory",
        "arithmetic",
    ]
    blocks: list[Block] = [Table(columns, rows, _CAPTION, groups=headings)]
    if lacking:
        blocks.append(Missing(f"Arithmetic could not be counted for {', '.join(lacking)}.", _ESTIMATE))
    return Section("costs", "Costs", blocks)


_DECIDING = ("student", "dino", "ibot", "crops", "curriculum", "train.batch_size_per_gpu", "step")
_ESTIMATE = "dinov2-noise train RUN/config.yaml --estimate"
_CAPTION = (
    "Time of the steps as DINOv2 logs it; start, checkpoints and evaluations between steps are not in it. Images per "
    "second over all processes, each image with all its crops. Waiting: share of the time without images to compute "
    "on. GPU memory: the most that was logged, per process. Arithmetic: counted from the config for the iterations "
    "done, all processes (`train --estimate` tells by part)."
)


def _row(run: Run, time: StageTime, flops_per_image: float | None) -> list[str | Cell]:
    images = run.images_per_step
    rate = "–" if not images or not time.seconds else f"{images / time.seconds_per_step:.3g}"
    done = "–"
    if flops_per_image is not None and images:
        done = _arithmetic(flops_per_image * images * time.n_iterations)
    share = f"{100 * time.waiting_s / time.seconds:.0f} %" if time.seconds else "–"
    memory = "–" if run.max_memory_mib is None else f"{run.max_memory_mib:,} MiB"
    count = f"{time.n_iterations:,}"
    step = f"{time.seconds_per_step:.3g}"
    return [time.stage.name, count, duration(time.seconds), step, rate, share, done, memory]


def _arithmetic(flops: float) -> str:
    unit, size = next((both for both in _UNITS if flops >= both[1]), _UNITS[-1])
    return f"{flops / size:.3g} {unit}FLOPs"


_UNITS = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9))


def _total(run: Run, times: Sequence[StageTime], flops: dict[str, float] | None) -> list[str | Cell]:
    whole = StageSpan("in all", 0, sum(time.stage.count for time in times), "")
    sums = [sum(getattr(time, name) for time in times) for name in ("n_iterations", "seconds", "waiting_s")]
    total = StageTime(whole, int(sums[0]), sums[1], sums[2])
    mean = None
    if flops is not None and all(time.stage.name in flops for time in times):
        mean = sum(flops[time.stage.name] * time.n_iterations for time in times) / total.n_iterations
    return _row(run, total, mean)


def _flops(run: Run) -> dict[str, float] | None:
    """Stage → FLOPs per image; None where the config cannot be counted here."""
    try:
        from dinov2_noise.upstream import estimate

        cost = estimate.cost_of(estimate.load(str(run.config_file)))
    except (DinoNoiseError, ImportError, OSError) as cause:
        logger.debug("no estimate of %s: %s", run.folder, cause)
        return None
    return {span.name: stage.flops.total for span, stage in zip(run.stages, cost.stages, strict=False)}


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``, ``2.1 d``."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.3g} s"
