"""Which step needs which, in what order they run, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from dinov2_noise.curriculum.strict import choose
from dinov2_noise.errors import ConfigError
from dinov2_noise.recipes.corruption_step import CorruptionsStep
from dinov2_noise.recipes.denoise_steps import DenoiseStep
from dinov2_noise.recipes.ledger import StepRecord, fingerprint
from dinov2_noise.recipes.recipe import Recipe
from dinov2_noise.recipes.steps import CommandLineStep, CommandStep, Step, reads_from
from dinov2_noise.recipes.upstream_steps import LinearStep, ProbeStep, TrainStep

DONE, CHANGED, TO_DO, OPEN = "done", "changed", "to do", "open"


@dataclass(frozen=True)
class Status:
    """`DONE`, `CHANGED` (done once, with other settings or inputs), `TO_DO`, or `OPEN`, and why.

    Open: done, and stays so if the steps it needs, which are still to be run, find their work done.
    """

    state: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


class Plan:
    """The graph of a recipe's steps.

    Raises:
        ConfigError: a needed step does not exist, two steps write the same path, or steps need each other in a circle.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.needs: Mapping[str, list[str]] = self._needs()
        self.order: list[str] = self._order()

    def step(self, name: str) -> Step:
        return self.recipe.steps[name]

    def command(self, name: str, processes: int | None = None) -> list[str]:
        """The step's command line, as one would type it; ``processes``: instead of those of the step."""
        step = self.step(name)
        processes = step.processes if processes is None else processes
        if isinstance(step, CorruptionsStep):
            return step.bound_command(self.run_of(step), processes, self.heads_of(step))
        if isinstance(step, ProbeStep):
            return step.bound_command(self.run_of(step), processes)
        if isinstance(step, DenoiseStep):
            return step.bound_command(processes)
        assert isinstance(step, CommandLineStep)  # all others are
        return step.command()

    def nearest(self, name: str) -> list[str]:
        """The steps that ``name`` needs, without those that one of them needs itself."""
        implied: set[str] = set()
        for step in reversed(self.order[: self.order.index(name)]):
            if step in implied or step in self.needs[name]:
                implied |= {*self.needs[step]}
        return [need for need in self.needs[name] if need not in implied]

    def run_of(self, probe: ProbeStep) -> TrainStep:
        """The training that ``probe`` evaluates."""
        run = self.step(probe.of)
        assert isinstance(run, TrainStep)  # checked with the needs
        return run

    def heads_of(self, step: CorruptionsStep) -> str | None:
        """Folder of the linear classifiers that ``step`` uses; None where it trains some."""
        named = self.recipe.steps.get(step.classifiers or "")
        return named.output if isinstance(named, LinearStep) else step.classifiers

    def record_path(self, name: str) -> Path:
        return self.recipe.workdir / "steps" / f"{name}.json"

    def record(self, name: str) -> StepRecord | None:
        return StepRecord.load(self.record_path(name))

    def inputs(self, name: str) -> dict[str, str]:
        """What each needed step left, and the text of the config file: a change of these makes this step old."""
        step = self.step(name)
        found = {need: self._left_by(need) for need in self.needs[name]}
        return found | ({"config": step.config_hash()} if isinstance(step, TrainStep) else {})

    def _left_by(self, name: str) -> str:
        record = self.record(name)
        execution = "" if record is None else record.execution
        return f"{execution} {fingerprint(self.step(name).writes())}"

    def status(self, name: str, waiting: Sequence[str] = ()) -> Status:
        """How far a step is; ``waiting``: steps it needs that are still to be run."""
        step, record = self.step(name), self.record(name)
        if record is None:
            return Status(TO_DO)
        if record.state != "done":
            return Status(TO_DO, "failed" if record.state == "failed" else "interrupted")
        gap = step.missing()
        if gap is not None:
            return Status(TO_DO, gap)
        changed = differing(record.settings, step.identity())
        if changed:
            return Status(CHANGED, ", ".join(changed))
        redone = [key for key in self.changed_inputs(name, record) if key not in waiting]
        if redone:
            return Status(CHANGED, f"{', '.join(redone)} came out differently")
        return Status(OPEN, f"done, if {', '.join(waiting)} comes out as before") if waiting else Status(DONE)

    def survey(self) -> dict[str, Status]:
        """The status of every step, in order, before anything is run."""
        found: dict[str, Status] = {}
        for name in self.order:
            waiting = [need for need in self.needs[name] if found[need].state != DONE]
            found[name] = self.status(name, waiting)
        return found

    def changed_inputs(self, name: str, record: StepRecord) -> list[str]:
        """Inputs that are no longer those of ``record``."""
        now = self.inputs(name)
        return [key for key in sorted({*record.inputs, *now}) if record.inputs.get(key) != now.get(key)]

    def select(self, *, only: Iterable[str] = (), start: str | None = None) -> list[str]:
        """Names in order: all, or those of ``only``, or ``start`` and what needs it, directly or not.

        Raises:
            ConfigError: there is no such step.
        """
        wanted = list(only)
        for name in [*wanted, *([start] if start else [])]:
            choose(name, list(self.recipe.steps), "step")
        if wanted:
            return [name for name in self.order if name in wanted]
        if start is None:
            return self.order
        after = {start}
        for name in self.order:
            if after & {*self.needs[name]}:
                after.add(name)
        return [name for name in self.order if name in after]

    @cached_property
    def _writers(self) -> dict[Path, str]:
        writers: dict[Path, str] = {}
        for name, step in self.recipe.steps.items():
            for path in step.writes():
                other = writers.setdefault(_absolute(path), name)
                if other != name:
                    raise ConfigError(f"steps.{name} and steps.{other} both write {path}")
        return writers

    def _needs(self) -> dict[str, list[str]]:
        names = list(self.recipe.steps)
        needs = {}
        for position, (name, step) in enumerate(self.recipe.steps.items()):
            found = [*step.needs]
            if isinstance(step, ProbeStep):
                choose(step.of, names, f"steps.{name}.of")
                if not isinstance(self.step(step.of), TrainStep):
                    raise ConfigError(f"steps.{name}.of: {step.of} is not a training step")
                found.append(step.of)
            if isinstance(step, CorruptionsStep) and step.classifiers in names:
                if not isinstance(self.step(step.classifiers), LinearStep):
                    raise ConfigError(f"steps.{name}.classifiers: {step.classifiers} is not a linear step")
                found.append(step.classifiers)
            for need in found:
                choose(need, names, f"a step of steps.{name}.needs")
            found += reads_from([_absolute(path) for path in step.reads()], self._writers)
            if isinstance(step, CommandStep) and not found and not step.inputs and position:
                found.append(names[position - 1])
            needs[name] = [need for need in dict.fromkeys(found) if need != name or need in step.needs]
        return needs

    def _order(self) -> list[str]:
        """By needs; among the free ones, by the file's order."""
        sorter = TopologicalSorter(self.needs)
        try:
            sorter.prepare()
        except CycleError as error:
            circle = " → ".join(reversed(error.args[1]))
            raise ConfigError(f"steps need each other in a circle: {circle}") from error
        order: list[str] = []
        while len(order) < len(self.needs):
            name = next(n for n, needs in self.needs.items() if n not in order and {*needs} <= {*order})
            order.append(name)
        return order


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which settings are others, as ``key was …, is …``."""
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return [f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in keys]
