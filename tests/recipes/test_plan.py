"""Which step needs which, the order, and when a step counts as done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dinov2_noise.errors import ConfigError
from dinov2_noise.recipes.execute import execute
from dinov2_noise.recipes.ledger import fingerprint
from dinov2_noise.recipes.plan import CHANGED, DONE, OPEN, TO_DO, Plan

Make = Callable[..., Plan]
PIPELINE = """
steps:
  probe: {kind: linear, of: nct, output: nct/linear, root: n}
  nct:
    kind: train
    config: in1k-nct-gauss255-published
    output: nct
    dataset: "ImageNet:split=TRAIN:root=n:denoised=d"
    options: [curriculum.stages.1.anchor.teacher=kept/model_final.pth]
  kept: {kind: train, config: in1k-denoised-gauss255, output: kept, dataset: "ImageNet:split=TRAIN:root=d"}
  d: {kind: denoise-apply, noisy: n, output: d, weights: w/denoiser.pth}
  w: {kind: denoise-train, noisy: n, output: w}
  index-d: {kind: index, root: d}
  index-n: {kind: index, root: n}
  n: {kind: noise, source: clean, output: n, noise: gauss255}
  report: {kind: command, run: [echo, done]}
"""


def test_needs_follow_from_what_steps_read_and_write(make: Make) -> None:
    plan = make(PIPELINE)
    needs = {name: set(found) for name, found in plan.needs.items()}
    assert needs == {
        "n": set(),
        "index-n": {"n"},
        "w": {"n"},
        "d": {"n", "w"},
        "index-d": {"d"},
        "kept": {"d", "index-d"},
        "nct": {"n", "d", "index-n", "kept"},
        "probe": {"nct", "n", "index-n"},
        "report": {"n"},  # a command that names no inputs: the step before it
    }
    assert sorted(plan.order) == sorted(needs)
    assert all(plan.order.index(need) < plan.order.index(name) for name in needs for need in needs[name])
    assert plan.nearest("probe") == ["nct"]
    assert set(plan.nearest("nct")) == {"index-n", "kept"}


def test_selection(make: Make) -> None:
    plan = make(PIPELINE)
    assert plan.select() == plan.order
    assert plan.select(only=["probe", "d"]) == ["d", "probe"]
    assert set(plan.select(start="kept")) == {"kept", "nct", "probe"}
    with pytest.raises(ConfigError, match="step is 'nc': did you mean 'nct'"):
        plan.select(only=["nc"])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("{a: {kind: index, root: r, needs: [b]}}", "a step of steps.a.needs is 'b'"),
        (
            "{a: {kind: command, run: [x], needs: [b]}, b: {kind: command, run: [x], needs: [a]}}",
            "circle: (a → b → a|b → a → b)",
        ),
        ("{a: {kind: command, run: [x], needs: [a]}}", "circle: a → a"),
        ("{a: {kind: index, root: r}, b: {kind: index, root: r}}", "steps.b and steps.a both write .*r-extra"),
        (
            "{a: {kind: index, root: r}, b: {kind: knn, of: a, root: r, output: o}}",
            "steps.b.of: a is not a training step",
        ),
        ("{b: {kind: knn, of: a, root: r, output: o}}", "steps.b.of is 'a'"),
    ],
)
def test_wrong_needs(make: Make, steps: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(f"steps: {steps}")


def states(plan: Plan) -> list[str]:
    return [status.state for status in plan.survey().values()]


def test_done_changed_and_open(make: Make, chain: str, tmp_path: Path) -> None:
    plan = make(chain)
    assert states(plan) == [TO_DO, TO_DO, TO_DO]
    for name in plan.order:
        execute(plan, name)
    assert states(plan) == [DONE, DONE, DONE]
    assert (tmp_path / "w" / "c").read_text().strip() == "6"

    other = make(chain, "text=bonjour")
    assert states(other) == [CHANGED, OPEN, OPEN]
    assert "hello" in str(other.status("first"))
    assert "bonjour" in str(other.status("first"))
    execute(other, "first")
    assert states(other) == [DONE, CHANGED, OPEN]
    assert str(other.status("second")) == "changed: first came out differently"

    (tmp_path / "w" / "b").unlink()
    assert states(make(chain)) == [CHANGED, TO_DO, OPEN]
    assert str(make(chain).status("second")).endswith("w/b does not exist")


def test_a_step_that_is_done_again_makes_later_ones_old(make: Make, chain: str, tmp_path: Path) -> None:
    plan = make(chain)
    for name in plan.order:
        execute(plan, name)
    (tmp_path / "w" / "a").unlink()
    assert states(plan) == [TO_DO, OPEN, OPEN]
    execute(plan, "first")
    assert states(plan) == [DONE, CHANGED, OPEN], "nothing tells that all it left is the same"


def test_files_deep_in_a_folder_count(make: Make, tmp_path: Path) -> None:
    text = """
steps:
  photos:
    kind: command
    run: [bash, -c, "mkdir -p ${workdir}/clean/train/a; echo 1 > ${workdir}/clean/train/a/1.png"]
    outputs: ["${workdir}/clean"]
  count: {kind: command, run: ["true"], inputs: ["${workdir}/clean"]}
"""
    plan = make(text)
    for name in plan.order:
        execute(plan, name)
    assert states(plan) == [DONE, DONE]
    image = tmp_path / "w" / "clean" / "train" / "a" / "1.png"
    for change in (lambda: image.write_text("22"), lambda: image.with_name("2.png").touch(), image.unlink):
        before = fingerprint(plan.step("photos").writes())
        change()
        assert fingerprint(plan.step("photos").writes()) != before
    assert states(plan) == [DONE, CHANGED]


def test_gpus_count_where_the_batch_is_per_gpu(make: Make) -> None:
    plan = make(
        """
steps:
  shared: {kind: train, config: in1k-nc-gauss255, output: a, global_batch: 512, gpus: 8}
  each: {kind: train, config: in1k-nc-gauss255, output: b, gpus: 4, nodes: 2}
  linear: {kind: linear, of: each, output: c, root: n, gpus: 2}
  knn: {kind: knn, of: each, output: d, root: n, gpus: 2}
"""
    )
    counted = {name: plan.step(name).identity().get("processes") for name in plan.order}
    assert counted == {"shared": None, "each": 8, "linear": 2, "knn": None}


def test_folders_of_ours_count_when_their_manifest_is_complete(make: Make, tmp_path: Path) -> None:
    plan = make(f"steps: {{n: {{kind: noise, source: s, output: {tmp_path}/n, noise: gauss50}}}}")
    step = plan.step("n")
    assert str(step.missing()).endswith("n does not exist")
    (tmp_path / "n").mkdir()
    assert str(step.missing()).endswith("manifest.json does not exist")
    (tmp_path / "n" / "manifest.json").write_text('{"complete": false}')
    assert str(step.missing()).endswith("n is incomplete")
    (tmp_path / "n" / "manifest.json").write_text('{"complete": true}')
    assert step.missing() is None
