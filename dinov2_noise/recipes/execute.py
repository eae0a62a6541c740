"""One step from start to record: the same code for a local run and inside a SLURM job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from dinov2_noise.errors import DinoNoiseError, OutputFolderError
from dinov2_noise.evaluation.records import versions
from dinov2_noise.launch import LaunchError
from dinov2_noise.recipes.ledger import StepRecord
from dinov2_noise.recipes.plan import DONE, Plan, differing
from dinov2_noise.recipes.process import StoppedError, executable, now, run_logged
from dinov2_noise.recipes.results import save_record
from dinov2_noise.recipes.steps import Step
from dinov2_noise.recipes.upstream_steps import ProbeStep, TrainStep
from dinov2_noise.writing import locked


@dataclass(frozen=True)
class Task:
    """Which of a step's processes this is. Under SLURM each is started by ``srun``; else we start all."""

    rank: int = 0
    in_slurm: bool = False

    @classmethod
    def current(cls, environment: Mapping[str, str]) -> Task:
        """Under submitit's SLURM executor the task that SLURM says; else the only one."""
        if environment.get("SUBMITIT_EXECUTOR") == "slurm" and "SLURM_PROCID" in environment:
            return cls(int(environment["SLURM_PROCID"]), True)
        return cls()


def execute(plan: Plan, name: str, task: Task | None = None) -> None:
    """Run one step unless it is done; steps it needs must be.

    Raises:
        LaunchError: a needed step is not done, or the step failed. BusyError: another process runs it.
        OutputFolderError: its inputs changed since its folder was begun.
    """
    task = task or Task.current(os.environ)
    if plan.status(name).state == DONE:
        return
    unfinished = [need for need in plan.needs[name] if plan.status(need).state != DONE]
    if unfinished:
        raise LaunchError(
            f"step {name} needs {', '.join(unfinished)}, not done: run the recipe without --only or --from"
        )
    if task.rank > 0:
        step = plan.step(name)
        if not (isinstance(step, TrainStep) and step.missing() is None):  # finished, see _is_finished
            _start(plan, name, task, None)
        return
    with _lock(plan, name) as lock:
        _record(plan, name, task, lock)


def log_path(plan: Plan, name: str, rank: int = 0) -> Path:
    """Where the step's output goes; tasks of a SLURM job beside the first have a log each."""
    return plan.recipe.workdir / "logs" / (f"{name}.log" if rank == 0 else f"{name}.{rank}.log")


def set_aside(plan: Plan, name: str) -> Path | None:
    """Forget that step ``name`` was done, and rename its folder if it has one; returns the new name.

    Raises:
        BusyError: it is being run.
    """
    with _lock(plan, name):
        plan.record_path(name).unlink(missing_ok=True)
        folder = plan.step(name).folder()
        if folder is None or not folder.exists():
            return None
        number = 1
        while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
            number += 1
        return folder.rename(aside)


def _lock(plan: Plan, name: str) -> AbstractContextManager[IO[str] | None]:
    return locked(plan.record_path(name).with_suffix(".lock"), f"step {name}")


def _record(plan: Plan, name: str, task: Task, lock: IO[str] | None) -> None:
    step, before, inputs = plan.step(name), plan.record(name), plan.inputs(name)
    if isinstance(step, TrainStep):
        finished = _is_finished(plan, name, before)
    else:
        finished = False
        _refuse_other_inputs(plan, name, before)
    if isinstance(step, ProbeStep):
        interrupted = before is not None and before.state != "done"
        # Upstream goes on from the heads it finds, whatever they were trained on and for how long.
        same = before is not None and before.inputs == inputs and not differing(before.settings, step.identity())
        step.clear(keep_checkpoints=interrupted and same)
    record = StepRecord(
        state="running",
        command=plan.command(name),
        settings=step.identity(),
        inputs=inputs,
        outputs=[str(path) for path in step.writes()],
        started=now(),
        execution=_execution(step, before),
        versions=versions(),
    )
    path = plan.record_path(name)
    record.save(path)
    try:
        if not finished:
            _start(plan, name, task, lock)
        gap = step.missing()
        if gap is not None:
            raise LaunchError(f"its command ended well, but {gap}; see {log_path(plan, name)}")
        if isinstance(step, ProbeStep):
            save_record(plan, name, step)
    except StoppedError:
        raise
    except DinoNoiseError as error:
        replace(record, state="failed", ended=now()).save(path)
        raise LaunchError(f"step {name} failed: {error}") from error
    replace(record, state="done", ended=now()).save(path)


def _execution(step: Step, before: StepRecord | None) -> str:
    if before is not None and step.continues and step.missing() is None:
        return before.execution  # nothing is left to do, so nothing will be others' reason to be done again
    return uuid4().hex


def _start(plan: Plan, name: str, task: Task, lock: IO[str] | None) -> None:
    environment = dict(os.environ)
    if not task.in_slurm:
        # Upstream takes the mere presence of this variable for a task of srun, as in a shell inside of an allocation.
        environment.pop("SLURM_JOB_ID", None)
    command = _processes_command(plan, name, 1 if task.in_slurm else plan.step(name).processes)
    run_logged(command, log_path(plan, name, task.rank), environment=environment, lock=lock)


def _processes_command(plan: Plan, name: str, processes: int) -> list[str]:
    step = plan.step(name)
    if isinstance(step, TrainStep):
        return step.processes_command(processes)
    return executable(plan.command(name, processes))


def _is_finished(plan: Plan, name: str, before: StepRecord | None) -> bool:
    """Whether the training reached its end and only its record was not written any more.

    A finished run must not be started again: upstream would take one more step and write its last checkpoint anew.

    Raises:
        OutputFolderError: what is in the folder was learned from other inputs, or finished with other settings.
    """
    step = plan.step(name)
    folder, changed = step.folder(), [] if before is None else plan.changed_inputs(name, before)
    # Whether another config matters is for a training that goes on to tell: it compares the values.
    if folder is None or not any(folder.glob("*.pth")):
        return False
    finished = step.missing() is None
    why = [f"{key} came out differently" for key in changed if key != "config" or finished]
    if before is None:
        why += ["this recipe has no record of it"] if finished else []
    else:
        # Options are compared by a training that goes on, but a batch per GPU looks the same on more of them.
        why += differing(_settings(before.settings, finished), _settings(step.identity(), finished))
    if why:
        raise OutputFolderError(
            f"step {name}: {folder} holds a training {'that is finished' if finished else 'begun earlier'}, "
            f"and {'; '.join(why)}. Add --force {name}, which renames that folder and trains anew, or choose another "
            "--workdir"
        )
    return finished


def _settings(settings: Mapping[str, Any], finished: bool) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if finished or key == "processes"}


def _refuse_other_inputs(plan: Plan, name: str, before: StepRecord | None) -> None:
    """A folder of ours is continued, and left alone when complete: it must not be of other inputs.

    Raises:
        OutputFolderError: it is.
    """
    step = plan.step(name)
    folder = step.folder()
    if before is None or not step.continues or folder is None or not folder.exists():
        return
    changed = plan.changed_inputs(name, before)
    if changed:
        raise OutputFolderError(
            f"step {name}: {folder} was made from other inputs: {', '.join(changed)} came out differently. Add "
            f"--force {name}, which renames that folder and makes it anew, or choose another --workdir"
        )
