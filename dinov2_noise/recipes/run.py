"""Run a recipe on this machine, one step after the other, or tell what would be run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dinov2_noise.curriculum.strict import choose
from dinov2_noise.errors import ConfigError
from dinov2_noise.launch import LaunchError
from dinov2_noise.recipes.execute import execute, log_path, set_aside
from dinov2_noise.recipes.plan import CHANGED, DONE, Plan
from dinov2_noise.recipes.process import signals_as_errors
from dinov2_noise.recipes.queue import queued_jobs
from dinov2_noise.recipes.results import results_table

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def run_local(plan: Plan, names: Sequence[str]) -> None:
    """Run those of ``names`` that are not done, in order; stop at the first that fails.

    Raises:
        LaunchError: a step failed, needs one that is not done, or is queued as a SLURM job.
        ConfigError: a step wants several machines.
    """
    for name in names:
        if plan.step(name).nodes > 1:
            raise ConfigError(f"steps.{name}.nodes is {plan.step(name).nodes}: several machines need --slurm")
    jobs = queued_jobs(plan)
    with signals_as_errors():
        for number, name in enumerate(names, start=1):
            title = f"[{number}/{len(names)}] {name}"
            status = plan.status(name)
            if status.state == DONE:
                console.print(f"{title}: done before")
                continue
            if name in jobs:
                raise LaunchError(f"step {name} is queued as SLURM job {jobs[name]}: wait for it or `scancel` it first")
            reason = f" ({status})" if status.state == CHANGED or status.reason else ""
            console.print(f"{title}{reason}: log in {log_path(plan, name)}")
            start = time.monotonic()
            with _clock(name):
                execute(plan, name)
            console.print(f"{title}: done in {time.monotonic() - start:.0f} s")
    show_results(plan)


def force(plan: Plan, names: Sequence[str]) -> None:
    """Set aside what the steps ``names`` left, so that they are run anew.

    Raises:
        ConfigError: there is no such step.
        LaunchError: it is queued as a SLURM job. BusyError: it is being run.
    """
    for name in names:
        choose(name, plan.order, "step of --force")
    jobs = queued_jobs(plan)
    for name in names:
        if name in jobs:
            raise LaunchError(f"step {name} is queued as SLURM job {jobs[name]}: `scancel` it first")
        aside = set_aside(plan, name)
        if aside is not None:
            console.print(f"{name}: what it left is now {aside}; delete it if it is no longer needed")


def show_plan(plan: Plan, names: Sequence[str]) -> None:
    """Print the steps, how far they are, and the commands of those to be run."""
    statuses, jobs = plan.survey(), queued_jobs(plan)
    if plan.recipe.description:
        console.print(f"{plan.recipe.name}: {plan.recipe.description}")
    table = Table("step", "needs", "GPUs", "status", box=None, pad_edge=False)
    for name in names:
        step = plan.step(name)
        gpus = str(step.gpus * step.nodes) if step.gpus else "–"
        status = f"queued as job {jobs[name]}" if name in jobs else str(statuses[name])
        table.add_row(name, ", ".join(plan.nearest(name)), gpus, status)
    # A table cut to the terminal's width would be of no use in a file.
    width = None if console.is_terminal else 200
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)
    for name in names:
        if statuses[name].state != DONE:
            console.print(f"\n# {name}\n{_pasteable(plan, name)}")


def _pasteable(plan: Plan, name: str) -> str:
    step = plan.step(name)
    if step.nodes > 1:  # no one command line starts it: each process is a task of srun
        return f"# runs as {step.nodes} nodes of {max(1, step.gpus)} processes each, under --slurm only"
    return shlex.join(plan.command(name))


def show_results(plan: Plan) -> None:
    """Print the table of results, if there are any."""
    table = results_table(plan)
    if table is not None:
        console.print(table)
        console.print(f"records: {plan.recipe.workdir / 'records'}")


@contextmanager
def _clock(name: str) -> Iterator[None]:
    """In a terminal a line with the time the step has taken so far, while the block runs."""
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(name, total=None)
        yield
