"""Jobs for SLURM, through submitit: options as on ``sbatch``'s command line, and one submission."""

from __future__ import annotations

import getpass
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError

from dinov2_noise.errors import ConfigError
from dinov2_noise.launch import LaunchError

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


def require_slurm() -> None:
    """Check that jobs can be submitted from this machine.

    Raises:
        LaunchError: SLURM's programs are not here.
    """
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise LaunchError(
                f"there is no `{program}` on this machine: start from a login node of a cluster, or leave out --slurm"
            )


class CommandJob:
    """What each task of a job runs: ``run(arguments)``. Picklable; SLURM's time limit requeues it."""

    def __init__(self, run: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> None:
        self.run, self.arguments = run, [*arguments]

    def __call__(self) -> None:
        self.run(self.arguments)

    def checkpoint(self) -> Any:
        """Called by submitit before the time limit: the same again, which continues."""
        return DelayedSubmission(self)


def submit_job(
    job: Callable[[], Any], folder: Path, parameters: Mapping[str, Any], options: Mapping[str, Any], *, what: str
) -> str:
    """Submit ``job`` and return SLURM's number of it.

    Args:
        job: what each of its tasks runs; picklable. With a method ``checkpoint`` it is requeued before its time limit.
        folder: for submitit's scripts and logs.
        parameters: of submitit's SLURM executor; at least ``cpus_per_task``.
        options: from `parse_options`, over those; what submitit does not know goes to ``sbatch`` as it is.
        what: names the job in an error.

    Raises:
        LaunchError: ``sbatch`` refuses.
    """
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=_MAX_REQUEUES)
    known = {key: value for key, value in options.items() if key in executor._valid_parameters()}
    other = {key: value for key, value in options.items() if key not in known}
    merged = {**parameters, **known}
    merged["additional_parameters"] = {**parameters.get("additional_parameters", {}), **other}
    # Since SLURM 22.05 srun does not take the cores over from sbatch; and tasks would wait for one that is gone.
    merged["srun_args"] = [f"--cpus-per-task={merged['cpus_per_task']}", "--kill-on-bad-exit=1"]
    try:
        executor.update_parameters(**merged)
        return str(executor.submit(job).job_id)
    except (FailedJobError, subprocess.CalledProcessError, ValueError) as cause:
        raise LaunchError(f"{what} could not be submitted: {cause}; mend it and start the command again") from cause


def queued_ids() -> set[str]:
    """Numbers of this user's jobs that wait or run; none where there is no SLURM.

    Raises:
        LaunchError: ``squeue`` fails.
    """
    if shutil.which("squeue") is None:
        return set()
    command = ["squeue", "--noheader", "--format=%i", f"--user={getpass.getuser()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LaunchError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return set(done.stdout.split())


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
