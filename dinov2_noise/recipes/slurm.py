"""Submit a recipe's steps as SLURM jobs that wait for each other, through submitit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table
from submitit.core.utils import DelayedSubmission

from dinov2_noise.files import atomic_path
from dinov2_noise.launch import LaunchError
from dinov2_noise.recipes.execute import execute
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.queue import note_job, queued_jobs
from dinov2_noise.recipes.recipe import load_recipe
from dinov2_noise.recipes.run import console
from dinov2_noise.recipes.steps import Step, minutes
from dinov2_noise.slurm import parse_options, require_slurm, submit_job


class StepJob:
    """What a job runs: one step of a recipe file without variables. Picklable; SLURM's time limit requeues it."""

    def __init__(self, recipe: Path, workdir: Path, name: str) -> None:
        self.recipe, self.workdir, self.name = recipe, workdir, name

    def __call__(self) -> None:
        # Signals are submitit's here: it requeues the job before the time limit and when it is preempted.
        execute(Plan(load_recipe(self.recipe, workdir=self.workdir)), self.name)

    def checkpoint(self) -> Any:
        """Called by submitit before the time limit: the same again, which continues."""
        return DelayedSubmission(self)


def submit(plan: Plan, names: Sequence[str], options: Sequence[str] = ()) -> dict[str, str]:
    """Submit those of ``names`` that are neither done nor queued; returns step → job id, of the queued ones too.

    Args:
        plan: of the recipe.
        names: steps, in order.
        options: further ``key=value`` for ``sbatch``, over those of the recipe.

    Raises:
        LaunchError: there is no SLURM here, a needed step is neither done nor queued, or ``sbatch`` refuses.
        ConfigError: an option is not of the form ``key=value``.
    """
    require_slurm()
    extra = parse_options([*plan.recipe.slurm.options, *options])
    frozen = _freeze(plan)
    jobs, statuses = queued_jobs(plan), plan.survey()
    table = Table("step", "job", "waits for", box=None, pad_edge=False)
    for name in names:
        if name in jobs:
            table.add_row(name, jobs[name], "queued before")
        elif statuses[name].state == DONE:
            table.add_row(name, "–", "done before")
        else:
            waits = _waits(plan, name, jobs, {step: status.state for step, status in statuses.items()})
            jobs[name] = _submit_one(plan, name, frozen, waits, extra)
            note_job(plan, name, jobs[name])
            table.add_row(name, jobs[name], ", ".join(waits))
    console.print(table)
    return jobs


def _waits(plan: Plan, name: str, jobs: dict[str, str], states: dict[str, str]) -> list[str]:
    neither = [need for need in plan.needs[name] if need not in jobs and states[need] != DONE]
    if neither:
        raise LaunchError(
            f"step {name} needs {', '.join(neither)}, neither done nor queued: submit without --only/--from"
        )
    return [jobs[need] for need in plan.needs[name] if need in jobs]


def _freeze(plan: Plan) -> Path:
    """The recipe with all values in place, beside the logs: what is submitted runs, whatever is edited later."""
    text = OmegaConf.to_yaml(OmegaConf.create(dict(plan.recipe.resolved)))
    folder = (plan.recipe.workdir / "slurm").absolute()
    path = folder / f"recipe-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _submit_one(plan: Plan, name: str, frozen: Path, waits: Sequence[str], extra: dict[str, Any]) -> str:
    job = StepJob(frozen, plan.recipe.workdir, name)
    return submit_job(job, plan.recipe.workdir / "slurm", _parameters(plan, name, waits), extra, what=f"step {name}")


def _parameters(plan: Plan, name: str, waits: Sequence[str]) -> dict[str, Any]:
    step: Step = plan.step(name)
    section = plan.recipe.slurm
    parameters: dict[str, Any] = {
        "job_name": f"{plan.recipe.name}-{name}",
        "time": minutes(step.hours),
        "nodes": step.nodes,
        "ntasks_per_node": max(1, step.gpus),
        "cpus_per_task": step.cpus or section.cpus_per_task,
        "additional_parameters": {},
    }
    for key in ("partition", "qos", "account", "constraint"):
        if getattr(section, key) is not None:
            parameters[key] = getattr(section, key)
    if section.mem_gb is not None:
        parameters["mem"] = f"{section.mem_gb:g}G"
    if step.gpus:
        parameters["gpus_per_node"] = step.gpus
    if waits:
        parameters["dependency"] = "afterok:" + ":".join(waits)
        parameters["additional_parameters"]["kill_on_invalid_dep"] = "yes"
    return parameters
