"""Reading recipes: inheritance, variables, and mistakes that are errors with the key's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dinov2_noise.errors import ConfigError
from dinov2_noise.recipes import load_recipe
from dinov2_noise.recipes.plan import Plan
from dinov2_noise.recipes.steps import NoiseStep
from dinov2_noise.recipes.upstream_steps import KnnStep, TrainStep

Make = Callable[..., Plan]
BASE = """
description: base
variables: {noise: gauss50, data: images, noisy: "${data}-${noise}"}
defaults: {noise: {workers: 2, seed: 1}}
slurm: {partition: gpu}
steps:
  noise: {kind: noise, source: "${data}", output: "${noisy}", noise: "${noise}", seed: 7}
  index: {kind: index, root: "${noisy}"}
"""


def test_variables_and_defaults_end_up_in_the_steps(make: Make) -> None:
    plan = make(BASE)
    step = plan.step("noise")
    assert isinstance(step, NoiseStep)
    assert (step.source, step.output, step.noise, step.seed, step.workers) == (
        "images",
        "images-gauss50",
        "gauss50",
        7,
        2,
    )
    assert plan.command("noise") == [
        *("dinov2-noise", "add-noise", "images", "images-gauss50", "--noise", "gauss50", "--seed", "7"),
        *("--workers", "2"),
    ]
    assert plan.recipe.slurm.partition == "gpu"


def test_overrides_reach_everything_derived_and_keep_texts(make: Make) -> None:
    plan = make(BASE, "noise=shot10", "data=1e3")
    assert plan.command("noise")[2:4] == ["1e3", "1e3-shot10"]
    assert plan.command("index") == ["dinov2-noise", "index", "1e3-shot10"]


def test_a_child_holds_only_differences(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    child = tmp_path / "child.yaml"
    child.write_text(
        "inherit: base.yaml\nvariables: {noise: shot1}\nsteps: {index: null, noise: {seed: 8},"
        " more: {kind: index, root: '${noisy}', extra: e}}"
    )
    recipe = load_recipe(child)
    assert (recipe.name, recipe.description, recipe.workdir) == ("child", "base", Path("runs/child"))
    assert list(recipe.steps) == ["noise", "more"]
    noise = recipe.steps["noise"]
    assert isinstance(noise, NoiseStep)
    assert (noise.noise, noise.seed, noise.output) == ("shot1", 8, "images-shot1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: {}", "key is 'stepz': did you mean 'steps'?"),
        ("steps: {}", "steps is empty"),
        ("steps: []", "steps must be a mapping"),
        ("steps: {a: {source: b}}", "steps.a must be a mapping with a kind"),
        ("steps: {a: {kind: nois}}", "steps.a.kind is 'nois': did you mean 'noise'?"),
        ("steps: {a: {kind: index, rot: b}}", "unknown key steps.a.rot: did you mean 'root'?"),
        ("steps: {a: {kind: index}}", "steps.a.root is missing"),
        ("steps: {a: {kind: index, root: 3}}", "steps.a.root must be a string"),
        ("steps: {a: {kind: index, root: r, hours: 0}}", "steps.a.hours must be positive"),
        ("steps: {a: {kind: index, root: r, gpus: 2}}", "this kind of step is one process"),
        ("steps: {'a b': {kind: index, root: r}}", "steps.a b: a step's name is made of"),
        ("defaults: {index: {seeds: 1}}\nsteps: {a: {kind: index, root: r}}", "key of defaults.index is 'seeds'"),
        ("slurm: {queue: x}\nsteps: {a: {kind: index, root: r}}", "unknown key slurm.queue"),
        ("variables: {steps: 1}\nsteps: {a: {kind: index, root: r}}", "variables.steps: this name is taken"),
        ("variables: {r: '???'}\nsteps: {a: {kind: index, root: '${r}'}}", "variables.r has no value.*add r=…"),
        ("variables: {r: 1}\nsteps: {a: {kind: index, root: '${q}'}}", r"steps.a.root: .*'q' not found.*variables: r"),
        ("steps: {a: {kind: index, root: r", "is not YAML"),
        ("steps: {a: {kind: knn, of: b, output: o}}", "steps.a: give either root, or train_dataset and val_dataset"),
        ("steps: {a: {kind: train, config: nctt, output: o}}", "steps.a.config: no config.*'nctt'.*closest are nct"),
        (
            "steps: {a: {kind: train, config: nct, output: o, gpus: 3, global_batch: 64}}",
            "steps.a.global_batch: 64 images cannot be shared out evenly among 3 GPUs",
        ),
        (
            "steps: {a: {kind: train, config: nct, output: o, options: [optim.epochs=3]}}",
            "add evaluation.eval_period_iterations=7500 to the step's options",
        ),
    ],
)
def test_mistakes_name_file_and_key(make: Make, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)recipe.*{message.replace('?', '[?]')}") as caught:
        make(text)
    assert "recipe.yaml" in str(caught.value)


def test_unknown_variables_are_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="variable of 'nose=shot1' is 'nose': did you mean 'noise'"):
        make(BASE, "nose=shot1")
    with pytest.raises(ConfigError, match="'shot1' is not of the form variable=value"):
        make(BASE, "shot1")


def test_circles_of_inheritance_and_missing_parents(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "a"), ("c", "gone")):
        (tmp_path / f"{name}.yaml").write_text(f"inherit: {parent}.yaml\n")
    with pytest.raises(ConfigError, match=re.escape("in a circle: a.yaml → b.yaml → a.yaml")):
        load_recipe(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"gone\.yaml does not exist"):
        load_recipe(tmp_path / "c.yaml")


def test_training_knows_its_teacher_and_shares_out_the_batch(make: Make) -> None:
    plan = make(
        """
steps:
  run: {kind: train, config: in100-nct-gauss255, output: o, gpus: 4, global_batch: 40, options: [train.seed=3]}
  probe: {kind: knn, of: run, output: p, root: n, nb_knn: [5, 10], gpus: 2}
"""
    )
    run, probe = plan.step("run"), plan.step("probe")
    assert isinstance(run, TrainStep)
    assert isinstance(probe, KnnStep)
    assert run.iterations == 250_000
    assert plan.command("run")[1:] == [
        *("train", "in100-nct-gauss255", "--output", "o", "--gpus", "4", "train.batch_size_per_gpu=10", "train.seed=3")
    ]
    command = plan.command("probe")
    assert command[:8] == [
        "python",
        "-m",
        "dinov2_noise.launch",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "dinov2.eval.knn",
    ]
    assert command[command.index("--pretrained-weights") + 1] == "o/eval/training_249999/teacher_checkpoint.pth"
    assert command[-3:] == ["--nb_knn", "5", "10"]
    # As a task of srun each process starts itself.
    assert plan.command("probe", 1)[:3] == ["python", "-m", "dinov2.eval.knn"]
