"""A ``matrix`` repeats the steps that name its variables, and only those."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dinov2_noise.errors import ConfigError
from dinov2_noise.recipes.plan import Plan
from dinov2_noise.recipes.upstream_steps import KnnStep, TrainStep

Make = Callable[..., Plan]
RECIPE = """
matrix: {noise: [gauss100, gauss255], seed: [0, 1, 2]}
variables: {data: images, noisy: "${data}-${noise}", weight: {gauss100: 4.0, gauss255: 1.1}}
defaults: {knn: {nb_knn: [10], root: "${noisy}"}}
steps:
  index: {kind: index, root: "${data}"}
  noise-${noise}: {kind: noise, source: "${data}", output: "${noisy}", noise: "${noise}"}
  nct-${noise}-${seed}:
    kind: train
    config: nct_laptop
    output: runs/${noise}-${seed}
    dataset: "ImageNet:split=TRAIN:root=${noisy}"
    options: ["train.seed=${seed}", "curriculum.stages.1.anchor.weight=${weight.${noise}}"]
  knn-${noise}-${seed}: {kind: knn, of: "nct-${noise}-${seed}", arm: nct, output: "runs/${noise}-${seed}/knn"}
"""


def test_steps_stand_once_per_combination_in_the_order_of_the_file(make: Make) -> None:
    plan = make(RECIPE)
    pairs = [f"{noise}-{seed}" for noise in ("gauss100", "gauss255") for seed in (0, 1, 2)]
    names = ["index", "noise-gauss100", "noise-gauss255", *(f"nct-{pair}" for pair in pairs)]
    assert list(plan.recipe.steps) == [*names, *(f"knn-{pair}" for pair in pairs)]


def test_values_reach_variables_defaults_and_other_steps(make: Make) -> None:
    plan = make(RECIPE)
    run, probe = plan.step("nct-gauss255-2"), plan.step("knn-gauss255-2")
    assert isinstance(run, TrainStep)
    assert isinstance(probe, KnnStep)
    assert run.dataset == "ImageNet:split=TRAIN:root=images-gauss255"
    assert run.options == ["train.seed=2", "curriculum.stages.1.anchor.weight=1.1"]
    assert plan.run_of(probe) is run
    assert (probe.root, probe.arm, probe.nb_knn) == ("images-gauss255", "nct", [10])
    assert list(plan.needs["nct-gauss255-2"]) == ["noise-gauss255"]


def test_the_command_line_narrows_it(make: Make) -> None:
    plan = make(RECIPE, "noise=gauss255", "seed=0,2")
    assert [name for name in plan.recipe.steps if name.startswith("nct")] == ["nct-gauss255-0", "nct-gauss255-2"]
    with pytest.raises(ConfigError, match=r"seed=3: '3' is not in the recipe's matrix: 0, 1, 2"):
        make(RECIPE, "seed=3")


def test_an_arm_counts_where_it_is_given(make: Make) -> None:
    named, plain = make(RECIPE), make(RECIPE.replace("arm: nct, ", ""))
    assert named.step("knn-gauss100-0").identity()["arm"] == "nct"
    assert "arm" not in plain.step("knn-gauss100-0").identity()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "index: {",
            "index: {extra: '${noise}', ",
            r"steps\.index uses \$\{noise\} of the matrix: put it into the name",
        ),
        ("seed: [0, 1, 2]", "seed: [0, 0]", r"matrix\.seed must be a list of different values, not \[0, 0\]"),
        ("seed: [0, 1, 2]", "seed: []", r"matrix\.seed must be a list of different values"),
        ("seed: [0, 1, 2]", "seed: [[0]]", r"matrix\.seed: values are texts or numbers"),
        ("data: images", "data: images, seed: 1", r"matrix\.seed: there is a variable of this name"),
        ("seed: [0, 1, 2]", "seed: [a b]", r"steps\.nct-gauss100-a b: a step's name is made of"),
        ("noise-${noise}:", "noise-${nois}:", r"steps\.noise-\$\{nois\}: a step's name is made of"),
        ("seed: [0, 1, 2]", "seed: [0, 1, 2], workdir: [a]", r"variables\.workdir: this name is taken"),
    ],
)
def test_mistakes_name_the_key(make: Make, old: str, new: str, message: str) -> None:
    assert old in RECIPE
    with pytest.raises(ConfigError, match=message):
        make(RECIPE.replace(old, new))
