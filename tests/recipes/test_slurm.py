"""`dinov2-noise run --slurm`, with SLURM's programs replaced by scripts; submitit and the jobs are real."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinov2_noise.errors import ConfigError
from dinov2_noise.launch import LaunchError
from dinov2_noise.recipes.execute import execute
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.queue import queued_jobs
from dinov2_noise.recipes.run import force, run_local, show_plan
from dinov2_noise.recipes.slurm import submit
from dinov2_noise.slurm import parse_options

Make = Callable[..., Plan]


def test_jobs_wait_for_each_other(make: Make, chain: str, slurm: Any) -> None:
    plan = make(chain)
    assert submit(plan, plan.order) == {"first": "101", "second": "102", "third": "103"}
    assert "dependency" not in slurm.job("101")
    assert slurm.job("102")["dependency"] == "afterok:101"
    assert slurm.job("103")["dependency"] == "afterok:102"
    assert slurm.job("103")["kill-on-invalid-dep"] == "yes"
    assert slurm.job("103")["job-name"] == "recipe-third"


def test_what_is_queued_is_not_submitted_twice(
    make: Make, chain: str, slurm: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make(chain)
    submit(plan, ["first", "second"])
    assert submit(plan, plan.order) == {"first": "101", "second": "102", "third": "103"}
    assert (slurm.folder / "count").read_text().strip() == "103"
    show_plan(plan, plan.order)
    assert "queued as job 102" in capsys.readouterr().out
    with pytest.raises(LaunchError, match="step first is queued as SLURM job 101"):
        run_local(plan, plan.order)
    with pytest.raises(LaunchError, match="step third is queued as SLURM job 103"):
        force(plan, ["third"])
    (slurm.folder / "queue").write_text("")
    assert queued_jobs(plan) == {}
    assert submit(plan, ["first"]) == {"first": "104"}, "lost from the queue without having run"


def test_what_is_done_is_neither_submitted_nor_waited_for(make: Make, chain: str, slurm: Any) -> None:
    plan = make(chain)
    execute(plan, "first")
    assert submit(plan, plan.order) == {"second": "101", "third": "102"}
    assert "dependency" not in slurm.job("101")
    (slurm.folder / "queue").write_text("")
    with pytest.raises(LaunchError, match="step third needs second, neither done nor queued"):
        submit(plan, ["third"])


def test_a_job_runs_its_step_and_writes_the_record(make: Make, chain: str, slurm: Any, tmp_path: Path) -> None:
    plan = make(chain)
    execute(plan, "first")
    submit(plan, plan.order)
    # The recipe is edited after the submission: the jobs run what was submitted.
    (tmp_path / "recipe.yaml").write_text("steps: {other: {kind: command, run: [ls]}}")
    assert slurm.run("101", tmp_path) == 0
    assert [status.state for status in plan.survey().values()][:2] == [DONE, DONE]
    assert (tmp_path / "w" / "b").read_text() == "HELLO\n"
    record = json.loads(plan.record_path("second").read_text())
    assert record["state"] == "done"
    assert submit(plan, plan.order) == {"third": "102"}, "still queued"


def test_a_failing_step_fails_its_job(make: Make, chain: str, slurm: Any, tmp_path: Path) -> None:
    plan = make(chain, "exit=3")
    execute(plan, "first")
    submit(plan, ["second"])
    assert slurm.run("101", tmp_path) != 0
    assert str(plan.status("second")) == "to do: failed"


def test_resources(make: Make, slurm: Any) -> None:
    plan = make(
        """
slurm: {partition: gpu, account: lab, cpus_per_task: 6, mem_gb: 64, options: [reservation=night]}
steps:
  run: {kind: train, config: in1k-nc-gauss255, output: "${workdir}/run", gpus: 4, nodes: 2, hours: 1.51, cpus: 10}
  probe: {kind: linear, of: run, output: "${workdir}/probe", root: n}
  rest: {kind: command, run: [ls], needs: [probe]}
"""
    )
    submit(plan, plan.order, ["partition=long", "--qos=high"])
    job = slurm.job("101")
    assert {key: job[key] for key in ("nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "mem")} == {
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-node": "4",
        "cpus-per-task": "10",
        "time": "91",
        "mem": "64G",
    }
    assert (job["partition"], job["account"], job["qos"], job["reservation"]) == ("long", "lab", "high", "night")
    assert "--cpus-per-task=10 --kill-on-bad-exit=1" in (slurm.folder / "job-101.sh").read_text()
    assert slurm.job("102")["ntasks-per-node"] == "1"
    assert slurm.job("102")["gpus-per-node"] == "1"
    rest = slurm.job("103")
    assert "gpus-per-node" not in rest
    assert rest["cpus-per-task"] == "6"
    assert rest["dependency"] == "afterok:102"
    with pytest.raises(ConfigError, match="several machines need --slurm"):
        run_local(plan, plan.order)


def test_several_machines_are_no_command_to_paste(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make("steps: {a: {kind: train, config: in1k-nc-gauss255, output: r, gpus: 4, nodes: 2, global_batch: 512}}")
    show_plan(plan, plan.order)
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "# runs as 2 nodes of 4 processes each, under --slurm only"
    assert "dinov2-noise train" not in out


def test_options_of_sbatch() -> None:
    options = ["partition=gpu", "--mem=8G", "account=0123", "qos=no", "--cpus-per-task=2", "exclusive=true"]
    assert parse_options(options) == {
        "partition": "gpu",
        "mem": "8G",
        "account": "0123",
        "qos": "no",
        "cpus_per_task": 2,
        "exclusive": True,
    }
    for option, message in (
        ("gpu", "'gpu' is not of the form key=value"),
        ("time=soon", "time=soon: must be minutes, H:M:S or D-H:M:S"),
        ("nodes=two", "nodes=two: must be a whole number"),
        ("srun_args=--x", "srun_args is not one of sbatch"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_options([option])


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("2:00:00", 120),
        ("0:30:00", 30),
        ("1-12", 2160),
        ("1-0:30", 1470),
        ("2-00:00:01", 2881),
    ],
)
def test_times(text: str, minutes: int) -> None:
    assert parse_options([f"time={text}"]) == {"time": minutes}


@pytest.mark.parametrize("key", ["cpus_per_task", "--cpus-per-task"])
def test_srun_is_given_what_sbatch_is(make: Make, chain: str, slurm: Any, key: str) -> None:
    submit(make(chain), ["first"], [f"{key}=2"])
    script = (slurm.folder / "job-101.sh").read_text()
    assert slurm.job("101")["cpus-per-task"] == "2"
    assert re.findall(r"--cpus-per-task=(\d+)", script) == ["2", "2"]


def test_sbatch_that_refuses(make: Make, chain: str, slurm: Any) -> None:
    (slurm.bin / "sbatch").write_text("#!/bin/bash\necho invalid partition specified >&2; exit 1\n")
    plan = make(chain)
    with pytest.raises(LaunchError, match=r"(?s)step first could not be submitted: .*invalid partition"):
        submit(plan, plan.order)


def test_no_slurm_here(make: Make, chain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    plan = make(chain)
    with pytest.raises(LaunchError, match="there is no `sbatch` on this machine"):
        submit(plan, plan.order)
