"""`dinov2-noise run` on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import SmallSet, clean_environment, run_python

from dinov2_noise.errors import BusyError, ConfigError, OutputFolderError
from dinov2_noise.launch import LaunchError
from dinov2_noise.recipes.command import Request, run_recipe
from dinov2_noise.recipes.execute import execute
from dinov2_noise.recipes.plan import DONE, Plan
from dinov2_noise.recipes.process import StoppedError
from dinov2_noise.recipes.run import force, run_local, show_plan

Make = Callable[..., Plan]


def ran(plan: Plan) -> str:
    """Names of the commands that ran, in order."""
    return " ".join((plan.recipe.workdir / "ran").read_text().split())


def test_each_step_runs_once(make: Make, chain: str) -> None:
    plan = make(chain)
    run_local(plan, plan.order)
    run_local(plan, plan.order)
    assert ran(plan) == "first second third"
    record = json.loads(plan.record_path("second").read_text())
    assert record["state"] == "done"
    assert list(record["inputs"]) == ["first"]
    assert record["started"] < record["ended"]
    assert record["versions"]["dinov2-noise"]


def test_a_failure_stops_the_run_and_is_tried_again(make: Make, chain: str) -> None:
    plan = make(chain, "exit=3")
    with pytest.raises(
        LaunchError, match=r"step second failed: `bash .*ended with status 3; the last line of .*second\.log"
    ):
        run_local(plan, plan.order)
    assert ran(plan) == "first second"
    assert str(plan.status("second")) == "to do: failed"
    mended = make(chain)
    run_local(mended, mended.order)
    assert ran(plan) == "first second second third"


def test_a_command_that_leaves_nothing_has_failed(make: Make) -> None:
    plan = make("steps: {a: {kind: command, run: ['true'], outputs: ['${workdir}/x']}}")
    with pytest.raises(LaunchError, match=r"its command ended well, but .*w/x does not exist"):
        run_local(plan, plan.order)
    other = make("steps: {a: {kind: command, run: [no-such-program]}}")
    with pytest.raises(LaunchError, match="cannot start no-such-program"):
        run_local(other, other.order)


def test_only_what_is_needed_runs_again(make: Make, chain: str) -> None:
    plan = make(chain)
    run_local(plan, plan.order)
    force(plan, ["first"])
    run_local(plan, plan.order)
    assert ran(plan) == "first second third first second third"
    changed = make(chain.replace("tr a-z A-Z", "tr a-z B-ZA"))
    run_local(changed, changed.order)
    assert ran(plan) == "first second third first second third second third"
    changed = make(chain, "text=hi")
    run_local(changed, changed.order)
    assert ran(plan) == "first second third first second third second third first second third"
    (plan.recipe.workdir / "c").unlink()
    with pytest.raises(LaunchError, match="step third needs second, not done"):
        execute(make(chain, "text=hi", "exit=1"), "third")


def test_force_renames_what_a_step_left(make: Make, small_set: SmallSet, tmp_path: Path) -> None:
    plan = make(f"steps: {{n: {{kind: noise, source: '{small_set.clean}', output: '{tmp_path}/n', noise: gauss50}}}}")
    for _ in range(2):
        (tmp_path / "n").mkdir()
        force(plan, ["n"])
    assert sorted(path.name for path in tmp_path.glob("n*")) == ["n.old1", "n.old2"]
    with pytest.raises(ConfigError, match="step of --force is 'm'"):
        force(plan, ["m"])


def test_names_are_printed_as_they_are(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make("steps: {a: {kind: command, run: [echo, ':x:', '[bold]']}}")
    show_plan(plan, plan.order)
    assert capsys.readouterr().out.splitlines()[-1] == "echo :x: '[bold]'"


def test_dry_run_prints_status_and_commands_and_changes_nothing(
    make: Make, chain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make(chain)
    run_local(plan, ["first"])
    before = sorted(plan.recipe.workdir.rglob("*"))
    capsys.readouterr()
    show_plan(plan, plan.order)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1].split() == ["first", "–", "done"]
    assert lines[2].split() == ["second", "first", "–", "to", "do"]
    command = lines[lines.index("# second") + 1]
    assert "# first" not in lines
    assert sorted(plan.recipe.workdir.rglob("*")) == before
    # It can be pasted into a shell.
    subprocess.run(command, shell=True, check=True)
    assert (plan.recipe.workdir / "b").read_text() == "HELLO\n"


TRAINING = """
variables: {seed: 0, workers: 4}
steps:
  data: {kind: command, run: [bash, -c, "date +%N > ${workdir}/d"], outputs: ["${workdir}/d"]}
  run:
    kind: train
    config: in100-nc-shot1
    output: "${workdir}/run"
    needs: [data]
    options: ["train.seed=${seed}", "train.num_workers=${workers}"]
"""


def _pretend_run(plan: Plan, *files: str, state: str) -> None:
    """As if the training had been started and left ``files``."""
    record = json.loads(plan.record_path("data").read_text())
    current = {"state": state, "inputs": plan.inputs("run"), "settings": plan.step("run").identity()}
    plan.record_path("run").write_text(json.dumps(record | current))
    for name in files:
        path = plan.recipe.workdir / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


FINISHED = ("model_final.pth", "eval/training_249999/teacher_checkpoint.pth")


def test_a_training_does_not_go_on_from_other_inputs(make: Make) -> None:
    plan = make(TRAINING)
    run_local(plan, ["data"])
    _pretend_run(plan, "model_0000009.pth", state="running")
    force(plan, ["data"])
    run_local(plan, ["data"])
    with pytest.raises(OutputFolderError, match=r"begun earlier, and data came out differently\. Add --force run"):
        execute(plan, "run")


def test_a_finished_training_is_not_started_again(make: Make) -> None:
    plan = make(TRAINING)
    run_local(plan, ["data"])
    _pretend_run(plan, *FINISHED, state="running")
    execute(plan, "run")  # would fail at once if it were started: there are no images
    assert plan.status("run").state == DONE
    assert make(TRAINING, "workers=8").status("run").state == DONE, "of no influence on what is learned"
    with pytest.raises(OutputFolderError, match=r"is finished, and options was \['train.seed=0'\], is"):
        execute(make(TRAINING, "seed=1"), "run")
    with pytest.raises(OutputFolderError, match="is finished, and processes was 1, is 2"):
        execute(make(TRAINING.replace("needs:", "gpus: 2\n    needs:")), "run")
    plan.record_path("run").unlink()
    with pytest.raises(OutputFolderError, match="is finished, and this recipe has no record of it"):
        execute(plan, "run")
    force(plan, ["run"])
    assert not (plan.recipe.workdir / "run").exists()
    assert (plan.recipe.workdir / "run.old1" / "model_final.pth").exists()


def test_options_that_exclude_each_other(make: Make, chain: str, tmp_path: Path) -> None:
    make(chain)
    for request, message in (
        (Request(only=["first"], start="second"), "--only and --from"),
        (Request(slurm_options=["partition=gpu"]), "--slurm-option is for --slurm"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_recipe(tmp_path / "recipe.yaml", [], tmp_path / "w", request)


# The first time `b` waits, with its process number in `pid`; the second time it is quick.
SLOW = """
steps:
  a: {kind: command, run: [bash, -c, "echo a >> ${workdir}/ran"]}
  b:
    kind: command
    run:
      - bash
      - -c
      - "if test -e ${workdir}/pid; then echo b >> ${workdir}/ran; else echo $$ > ${workdir}/pid; exec sleep 60; fi"
"""


def _pid_of_b(plan: Plan) -> int:
    path = plan.recipe.workdir / "pid"
    for _ in range(300):
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, StoppedError)])
def test_stopped_in_the_middle_it_takes_the_step_along_and_continues(
    make: Make, number: signal.Signals, error: type[BaseException]
) -> None:
    plan = make(SLOW)
    stop = threading.Thread(target=lambda: (_pid_of_b(plan), os.kill(os.getpid(), number)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        stop.start()
        with pytest.raises(error):
            run_local(plan, plan.order)
    finally:
        stop.join()
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(_pid_of_b(plan), 0)
    assert str(plan.status("b")) == "to do: interrupted"
    run_local(plan, plan.order)
    assert ran(plan) == "a b"


def test_a_step_that_outlives_its_run_is_not_started_beside_itself(make: Make, tmp_path: Path) -> None:
    plan = make(SLOW)
    command = [sys.executable, "-m", "dinov2_noise", "run", "recipe.yaml", "--workdir", str(plan.recipe.workdir)]
    process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL)
    child = _pid_of_b(plan)
    process.kill()
    process.wait()
    with pytest.raises(BusyError, match="step b is being run by another process"):
        run_local(plan, plan.order)
    os.kill(child, signal.SIGKILL)
    time.sleep(0.2)
    run_local(plan, plan.order)
    assert ran(plan) == "a b"


def test_noise_and_index_from_the_command_line(
    small_set: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real commands, as a user starts them; then once more, when there is nothing to do."""
    recipe = tmp_path / "real.yaml"
    recipe.write_text(
        """
variables: {clean: "???", noise: gauss50}
steps:
  noise: {kind: noise, source: "${clean}", output: "${workdir}/${noise}", noise: "${noise}", workers: 1}
  index: {kind: index, root: "${workdir}/${noise}"}
  count:
    kind: command
    run: [bash, -c, "ls ${workdir}/${noise}/train/*/*.png | wc -l > ${workdir}/count"]
    inputs: ["${workdir}/${noise}-extra"]
    outputs: ["${workdir}/count"]
"""
    )
    arguments = (
        "-m",
        "dinov2_noise",
        "run",
        "real.yaml",
        "--workdir",
        "w",
        f"clean={small_set.clean}",
        "noise=gauss100",
    )
    first = run_python(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (tmp_path / "w" / "count").read_text().strip() == "20"
    name = "train/n3/n3_1.png"
    assert (tmp_path / "w" / "gauss100" / name).read_bytes() == (small_set.noisy / name).read_bytes()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    run_recipe(Path("real.yaml"), arguments[-2:], Path("w"), Request())
    steps = ("noise", "index", "count")
    assert capsys.readouterr().out.splitlines() == [f"[{n}/3] {step}: done before" for n, step in enumerate(steps, 1)]


def test_noise_of_another_name_in_the_same_folder_is_refused(make: Make, small_set: SmallSet, tmp_path: Path) -> None:
    text = f"""
variables: {{noise: gauss50}}
steps: {{n: {{kind: noise, source: '{small_set.clean}', output: '{tmp_path}/n', noise: "${{noise}}", workers: 1}}}}
"""
    plan = make(text)
    run_local(plan, plan.order)
    other = make(text, "noise=shot1")
    assert str(other.status("n")) == "changed: noise was 'gauss50', is 'shot1'"
    with pytest.raises(LaunchError, match=r"step n failed: .*Choose another folder, or delete that one"):
        run_local(other, other.order)
    assert plan.status("n").state != DONE, "the record is of the attempt that failed"
