"""The section on costs: time per stage as logged, waiting for images, memory, and counted arithmetic."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.report.arms import by_arm
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

    Checkpoints, evaluations and the monitor's measurements are in the iterations they follow; the program's start is
    in none.
    """
    seconds: dict[StageSpan, list[float]] = {}
    before = -1
    for entry in run.training:
        iteration, step, data = entry["iteration"], entry.get("iter_time"), entry.get("data_time", 0.0)
        if not isinstance(step, int | float) or not isinstance(data, int | float):
            continue
        for stage, count in _stages_between(run, before + 1, iteration + 1):
            total = seconds.setdefault(stage, [0, 0.0, 0.0])
            for place, value in enumerate((1, step, data)):
                total[place] += count * value
        before = max(before, iteration)
    return [StageTime(stage, int(count), total, waiting) for stage, (count, total, waiting) in seconds.items()]


def _stages_between(run: Run, first: int, end: int) -> Iterator[tuple[StageSpan, int]]:
    """Stages of the iterations ``first`` to ``end`` - 1, each with how many of these it has; the last has no end."""
    for number, stage in enumerate(run.stages, start=1):
        stop = stage.first + stage.count if number < len(run.stages) else end
        count = min(end, stop) - max(first, stage.first)
        if count > 0:
            yield stage, count


def costs_section(runs: Sequence[Run]) -> Section:
    """Rows per arm and stage: means over its runs; runs that have not ended stand apart."""
    timed = {run.name: (run, times_of(run)) for run in runs}
    timed = {name: both for name, both in timed.items() if both[1]}
    if not timed:
        text = "No run has logged the time of its steps."
        return Section("costs", "Costs", [Missing(text, "dinov2-noise train CONFIG --estimate")])
    rows: list[Sequence[str | Cell]] = []
    headings, lacking = [], []
    counted: dict[str, dict[str, float] | None] = {}
    for title, same in _alike([run for run, _ in timed.values()]).items():
        headings.append((len(rows), title))
        run = same[0]
        key = repr([run.get(name) for name in _DECIDING])
        flops = counted[key] if key in counted else counted.setdefault(key, _flops(run))
        if flops is None:
            lacking.append(title)
        times = _mean([timed[one.name][1] for one in same])
        rows += [_row(same, time, (flops or {}).get(time.stage.name)) for time in times]
        if len(times) > 1:
            rows.append(_total(same, times, flops))
    total = duration(sum(time.seconds for _, times in timed.values() for time in times))
    together = f" All {len(timed)} runs together: {total}." if len(timed) > 1 else ""
    blocks: list[Block] = [Table(_COLUMNS, rows, _CAPTION + together, groups=headings)]
    if lacking:
        blocks.append(Missing(f"Arithmetic could not be counted for {', '.join(lacking)}.", _ESTIMATE))
    return Section("costs", "Costs", blocks)


def _alike(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Finished runs of an arm together, each other one alone; by their heading."""
    found: dict[str, list[Run]] = {}
    for arm, own in by_arm(runs).items():
        done = [run for run in own if run.is_finished]
        if done:
            found[f"{arm}, mean of {len(done)} runs" if len(done) > 1 else done[0].name] = done
        found |= {f"{run.name} ({run.state})": [run] for run in own if not run.is_finished}
    return found


def _mean(times: Sequence[Sequence[StageTime]]) -> list[StageTime]:
    """Of runs with the same stages, stage by stage; seconds of a mean run."""
    found = []
    for own in zip(*times, strict=False):
        count = len(own)
        n_iterations = round(sum(time.n_iterations for time in own) / count)
        seconds, waiting = (
            sum(values) / count for values in zip(*((t.seconds, t.waiting_s) for t in own), strict=True)
        )
        found.append(StageTime(own[0].stage, n_iterations, seconds, waiting))
    return found


_DECIDING = ("student", "dino", "ibot", "crops", "curriculum", "train.batch_size_per_gpu", "step")
_ESTIMATE = "dinov2-noise train RUN/config.yaml --estimate"
_COLUMNS = (
    "stage",
    "iterations",
    "time",
    "s per step",
    "images/s",
    "waiting for images",
    "GPU memory",
    "arithmetic",
)
_CAPTION = (
    "Time of the steps as DINOv2 logs it, with checkpoints and evaluations, without the program's start. Images per "
    "second over all processes, each image with all its crops. Waiting: share of the time without images to compute "
    "on. GPU memory: the most that was logged, per process; CPU: trained without one. Arithmetic: counted from the "
    "config for the iterations done, all processes (`train --estimate` tells by part)."
)


def _row(same: Sequence[Run], time: StageTime, flops_per_image: float | None) -> list[str | Cell]:
    images = same[0].images_per_step
    rate = "–" if not images or not time.seconds else f"{images / time.seconds_per_step:.3g}"
    done = "–"
    if flops_per_image is not None and images:
        done = _arithmetic(flops_per_image * images * time.n_iterations)
    share = f"{100 * time.waiting_s / time.seconds:.0f} %" if time.seconds else "–"
    used = [run.max_memory_mib for run in same if run.max_memory_mib is not None]
    memory = f"{max(used):,} MiB" if used else ("CPU" if all(run.device == "CPU" for run in same) else "–")
    count = f"{time.n_iterations:,}"
    step = f"{time.seconds_per_step:.3g}"
    return [time.stage.name, count, duration(time.seconds), step, rate, share, memory, done]


def _arithmetic(flops: float) -> str:
    unit, size = next((both for both in _UNITS if flops >= both[1]), _UNITS[-1])
    return f"{flops / size:.3g} {unit}FLOPs"


_UNITS = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9))


def _total(same: Sequence[Run], times: Sequence[StageTime], flops: dict[str, float] | None) -> list[str | Cell]:
    whole = StageSpan("in all", 0, sum(time.stage.count for time in times), "")
    sums = [sum(getattr(time, name) for time in times) for name in ("n_iterations", "seconds", "waiting_s")]
    total = StageTime(whole, int(sums[0]), sums[1], sums[2])
    mean = None
    if flops is not None and all(time.stage.name in flops for time in times):
        mean = sum(flops[time.stage.name] * time.n_iterations for time in times) / total.n_iterations
    return _row(same, total, mean)


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
