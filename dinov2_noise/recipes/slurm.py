"""Submit a recipe's steps as SLURM jobs that wait for each other, through submitit."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from omegaconf import OmegaConf
from rich.table import Table
from submitit.core.utils import DelayedSubmission, FailedJobError

from dinov2_noise.errors import ConfigError
from dinov2_noise.files import atomic_path
from dinov2_noise.launch import LaunchError
from dinov2_noise.recipes.execute import execute
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.queue import note_job, queued_jobs
from dinov2_noise.recipes.recipe import load_recipe
from dinov2_noise.recipes.run import console
from dinov2_noise.recipes.steps import Step, minutes

_NUMBERS = (
    "nodes",
    "ntasks_per_node",
    "cpus_per_task",
    "cpus_per_gpu",
    "gpus_per_node",
    "gpus_per_task",
    "signal_delay_s",
)
_OURS = ("additional_parameters", "array_parallelism", "srun_args", "use_srun")  # submitit's, not sbatch's
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MAX_REQUEUES = 50  # a training may be longer than what the cluster allows a job


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
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise LaunchError(
                f"there is no `{program}` on this machine: start from a login node of a cluster, or leave out --slurm"
            )
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


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """``key=value`` → parameters of submitit; what it does not know goes to ``sbatch`` as it is.

    Raises:
        ConfigError: no ``=``, or a value that is no number or time where one is due.
    """
    for option in options:
        if "=" not in option.lstrip("-"):
            raise ConfigError(f"SLURM option {option!r} is not of the form key=value, such as partition=gpu")
    pairs = [option.lstrip("-").partition("=") for option in options]
    return {key.replace("-", "_"): _value(key.replace("-", "_"), text) for key, _, text in pairs}


def _value(key: str, text: str) -> Any:
    if key in _OURS:
        raise ConfigError(f"SLURM option {key} is not one of sbatch")
    if key == "time":
        return _time(text)
    if key in _NUMBERS:
        if not text.isdecimal():
            raise ConfigError(f"SLURM option {key}={text}: must be a whole number")
        return int(text)
    if key in ("exclusive", "stderr_to_stdout") and text.lower() in ("true", "false"):
        return text.lower() == "true" or None  # None is left out
    return [text] if key in ("setup", "teardown") else text


def _time(text: str) -> int:
    """Minutes, rounded up, of a time as ``sbatch`` takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ConfigError(f"SLURM option time={text}: must be minutes, H:M:S or D-H:M:S")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:  # M or M:S
        numbers = [0, *numbers]
    hours, minute, second = [*numbers, 0, 0][:3]
    return math.ceil(((int(days or 0) * 24 + hours) * 3600 + minute * 60 + second) / 60)


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
    executor = submitit.SlurmExecutor(folder=plan.recipe.workdir / "slurm", max_num_timeout=_MAX_REQUEUES)
    parameters = _parameters(plan, name, waits)
    known = {key: value for key, value in extra.items() if key in executor._valid_parameters()}
    other = {key: value for key, value in extra.items() if key not in known}
    parameters["additional_parameters"].update(other)
    merged = {**parameters, **known}
    # Since SLURM 22.05 srun does not take the cores over from sbatch; and tasks would wait for one that is gone.
    merged["srun_args"] = [f"--cpus-per-task={merged['cpus_per_task']}", "--kill-on-bad-exit=1"]
    try:
        executor.update_parameters(**merged)
        job = executor.submit(StepJob(frozen, plan.recipe.workdir, name))
    except (FailedJobError, subprocess.CalledProcessError, ValueError) as cause:
        raise LaunchError(
            f"step {name} could not be submitted: {cause}; mend it and start the same command again: what is queued is "
            "not submitted twice"
        ) from cause
    return str(job.job_id)


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
