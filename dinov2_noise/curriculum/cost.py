"""What a run costs in arithmetic: stages composed of counted steps, and the text that tells it.

FLOPs are 2 x multiply-adds of matrix products, convolutions and attention, forward and backward. Not counted: norms,
activations, losses, optimizer, EMA, and all that happens to images before they are crops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dinov2_noise.curriculum.frequency import Crops
from dinov2_noise.errors import ConfigError

_UNITS = {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one step per image, by part.

    ``student``, ``student_heads``: forward. ``backward``: of both. ``teacher``, ``frozen``: forward, heads included;
    the frozen teacher runs in anchored stages only.
    """

    student: float
    student_heads: float
    backward: float
    teacher: float
    frozen: float = 0.0

    @property
    def total(self) -> float:
        """All parts."""
        return self.student + self.student_heads + self.backward + self.teacher + self.frozen


@dataclass(frozen=True)
class StageCost:
    """One stage; ``flops`` per image, ``local_crops`` per image."""

    name: str
    epochs: int
    n_iterations: int
    crops: Crops
    local_crops: int
    flops: StepFlops

    @property
    def shown_crops(self) -> str:
        """As ``2x224 + 8x96``."""
        return f"2x{self.crops.global_px} + {self.local_crops}x{self.crops.local_px}"


@dataclass(frozen=True)
class Rate:
    """Arithmetic a process does, in FLOP/s; ``source`` in words.

    ``by_crops`` holds rates measured for certain crops: small ones use a machine less well.
    """

    flops_per_s: float
    source: str
    by_crops: Mapping[Crops, float] = field(default_factory=dict)

    def of(self, crops: Crops) -> float:
        """The rate for steps with these crops."""
        return self.by_crops.get(crops, self.flops_per_s)


@dataclass(frozen=True)
class RunCost:
    """All stages, and ``plain``: plain DINOv2 of the same epochs with the config's own crops throughout.

    ``batch_size``: images per step and process.
    """

    stages: Sequence[StageCost]
    plain: StageCost
    batch_size: int
    processes: int

    @property
    def shown(self) -> list[StageCost]:
        """The stages, and ``plain`` unless it is the only one."""
        return [*self.stages, *([] if list(self.stages) == [self.plain] else [self.plain])]

    @property
    def images_per_step(self) -> int:
        """Over all processes."""
        return self.batch_size * self.processes

    def flops_of(self, stage: StageCost) -> float:
        """Of all its images."""
        return stage.flops.total * stage.n_iterations * self.images_per_step

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return sum(self.flops_of(stage) for stage in self.stages)

    def seconds_of(self, stage: StageCost, rate: Rate) -> float:
        """Wall time of a stage in which nothing but arithmetic takes time."""
        return self.flops_of(stage) / self.processes / rate.of(stage.crops)


def parse_rate(text: str) -> Rate:
    """``40TFLOPs``, ``40 TFLOP/s`` or ``3.5P``: per second and process.

    Raises:
        ConfigError: it is none of that.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([MGTPE])(?:FLOPS?(?:/S)?)?\s*", text.upper())
    if not found or float(found[1]) == 0:
        raise ConfigError(f"rate {text!r} is not a number of FLOPs per second, such as 40TFLOPs or 900GFLOPs")
    value = float(found[1]) * _UNITS[found[2]]
    return Rate(value, f"at {_flops(value, '/s')} per process, as given")


def describe(cost: RunCost, rate: Rate | None = None) -> str:
    """Tables of stages and parts, and with a ``rate`` the time."""
    processes = f"{cost.processes} process{'es' if cost.processes > 1 else ''}"
    blocks = [
        f"images per step: {cost.images_per_step:,} = {processes} x {cost.batch_size}",
        _columns(_stage_rows(cost)),
        "GFLOPs per image, by part\n" + _columns(_part_rows(cost)),
    ]
    if rate is not None:
        blocks.append(f"hours {rate.source}\n" + _columns(_time_rows(cost, rate)))
    return "\n\n".join(blocks)


def _stage_rows(cost: RunCost) -> list[list[str]]:
    head = [
        "stage",
        "epochs",
        "iterations",
        "images",
        "crops",
        "GFLOPs/image",
        "per step",
        "of plain",
        "total",
        "share",
    ]
    rows = [head]
    for stage in cost.stages:
        rows.append([*_stage_row(cost, stage), f"{cost.flops_of(stage) / cost.flops:.1%}"])
    epochs, iterations = cost.plain.epochs, cost.plain.n_iterations
    images = f"{iterations * cost.images_per_step:,}"
    of_plain = cost.flops / cost.flops_of(cost.plain)
    in_all = ["in all", f"{epochs:,}", f"{iterations:,}", images, "", "", "", f"{of_plain:.3f}", _flops(cost.flops), ""]
    beside = [[*_stage_row(cost, stage), ""] for stage in cost.shown[len(cost.stages) :]]
    return [*rows, in_all, *beside]


def _stage_row(cost: RunCost, stage: StageCost) -> list[str]:
    images, flops = stage.n_iterations * cost.images_per_step, stage.flops.total
    return [
        *(stage.name, f"{stage.epochs:,}", f"{stage.n_iterations:,}", f"{images:,}", stage.shown_crops),
        *(f"{flops / 1e9:.3g}" if flops < 1e10 else f"{flops / 1e9:.1f}", _flops(flops * cost.images_per_step)),
        *(f"{flops / cost.plain.flops.total:.3f}", _flops(cost.flops_of(stage))),
    ]


def _part_rows(cost: RunCost) -> list[list[str]]:
    rows = [["stage", "student", "its heads", "backward", "EMA teacher", "frozen teacher"]]
    for stage in cost.shown:
        flops = stage.flops
        parts = [flops.student, flops.student_heads, flops.backward, flops.teacher, flops.frozen]
        rows.append([stage.name, *(f"{part / 1e9:.2f}" if part else "-" for part in parts)])
    return rows


def _time_rows(cost: RunCost, rate: Rate) -> list[list[str]]:
    plain = cost.seconds_of(cost.plain, rate)

    def row(name: str, seconds: float, per_step: str) -> list[str]:
        return [name, per_step, _hours(seconds), f"{seconds / plain:.3f}"]

    rows = []
    for stage in cost.shown:
        seconds = cost.seconds_of(stage, rate)
        rows.append(row(stage.name, seconds, f"{seconds / stage.n_iterations:.3g}"))
    in_all = row("in all", sum(cost.seconds_of(stage, rate) for stage in cost.stages), "")
    n_stages = len(cost.stages)
    return [["stage", "s/step", "hours", "of plain"], *rows[:n_stages], in_all, *rows[n_stages:]]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.3g}" if hours < 100 else f"{hours:,.0f}"


def _flops(value: float, suffix: str = "") -> str:
    """``114 GFLOPs``; with ``/s`` ``114 GFLOP/s``."""
    unit = next((unit for unit in reversed(_UNITS) if value >= _UNITS[unit]), "M")
    return f"{value / _UNITS[unit]:.3g} {unit}{'FLOP' + suffix if suffix else 'FLOPs'}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of a table as lines: the first column flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if number == 0 else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
