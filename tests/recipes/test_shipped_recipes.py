"""The recipes of the repository: each parses, and all they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dinov2_noise.configs import catalogue, names
from dinov2_noise.recipes import load_recipe
from dinov2_noise.recipes.corruption_step import CorruptionsStep
from dinov2_noise.recipes.plan import Plan
from dinov2_noise.recipes.upstream_steps import LinearStep, TrainStep

FOLDER = Path(__file__).parents[2] / "configs"
RECIPES = sorted(FOLDER.glob("*.yaml"))
OF_ONE_NOISE = [path for path in RECIPES if re.fullmatch(r"in1(k|00)-(gauss|shot|speckle)[\d.]+", path.stem)]

FAST = [path for path in RECIPES if "-fast" in path.stem]


def _plan(path: Path) -> Plan:
    needs_noise = path.stem in ("imagenet100", "imagenet1k", "in100-three-arms", "in100-four-arms")
    return Plan(load_recipe(path, ["noise=gauss255"] if needs_noise else []))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_its_configs_exist(path: Path) -> None:
    plan = _plan(path)
    assert plan.recipe.description
    for name in plan.order:
        step = plan.step(name)
        plan.command(name)
        if isinstance(step, TrainStep):
            assert step.config in names()
    header = path.read_text(encoding="utf-8").split("\n")
    assert f"configs/{path.name}" in next(line for line in header if line.startswith("# Command:"))


def test_there_is_a_recipe_per_noise_and_set() -> None:
    published = {
        (name.split("-")[0], catalogue.experiment(name).noise) for name in catalogue.names() if "-baseline-" in name
    }
    assert {tuple(path.stem.split("-")) for path in OF_ONE_NOISE} == published
    assert len(published) == 11


@pytest.mark.parametrize("path", OF_ONE_NOISE, ids=lambda path: path.stem)
def test_headers_quote_the_reported_figures(path: Path) -> None:
    set_name, noise = path.stem.split("-")
    expected = path.read_text(encoding="utf-8").split("# Expected: ")[1].split("\n#")[0]
    reported = catalogue.reported(set_name, noise)
    arms = [arm for arm in ("baseline", "nc", "nct", "denoised") if arm in reported]
    assert re.findall(r"\d+\.\d", expected) == [f"{reported[arm]:.1f}" for arm in arms]


@pytest.mark.parametrize("path", OF_ONE_NOISE, ids=lambda path: path.stem)
def test_every_arm_is_probed_on_its_own_images(path: Path) -> None:
    plan = _plan(path)
    set_name, noise = path.stem.split("-")
    probes = [step for step in plan.recipe.steps.values() if isinstance(step, LinearStep)]
    runs = {name: step for name, step in plan.recipe.steps.items() if isinstance(step, TrainStep)}
    assert {probe.of for probe in probes} == set(runs)
    assert ("nct" in runs) == (f"{set_name}-nct-{noise}" in catalogue.names())
    for probe in probes:
        assert str(probe.root).endswith("-denoised") == (probe.of == "denoised")
    for name, run in runs.items():
        assert run.iterations == 250_000
        assert run.global_batch == (40 if set_name == "in100" else 512)
        # The same images as those its config names.
        assert OmegaConf.select(run._config, "train.dataset_path") == run.dataset, name


@pytest.mark.parametrize("path", FAST, ids=lambda path: path.stem)
def test_corruptions_are_those_of_clean_images_and_met_by_heads_of_clean_images(path: Path) -> None:
    plan = _plan(path)
    measured = [step for step in plan.recipe.steps.values() if isinstance(step, CorruptionsStep)]
    assert {step.of for step in measured} == {
        name for name, step in plan.recipe.steps.items() if isinstance(step, TrainStep)
    }
    for step in measured:
        heads = plan.recipe.steps[step.classifiers or ""]
        assert isinstance(heads, LinearStep)
        assert (heads.of, heads.root) == (step.of, step.root)
        assert step.root == ("imagenet100" if path.stem.startswith("in100") else "imagenet")
        assert {"index", "index-clean"} & {*plan.needs[step.classifiers or ""]}
