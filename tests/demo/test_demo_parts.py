"""The demo's parts: cells that do not leak, arms with one budget, and the whole path at a size for tests (slow)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers import clean_environment
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from dinov2_noise.configs import GUARD
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.demo.cells import CELL_PX, PICTURES, cut, photographs, split_columns, write_cells
from dinov2_noise.demo.recipe import Recipe
from dinov2_noise.errors import OutputFolderError
from dinov2_noise.files import list_images, read_manifest


def _ruler(width: int, height: int) -> Image.Image:
    """A picture whose pixels hold their own coordinates: red the column, green the row (both modulo 256)."""
    columns, rows = np.meshgrid(np.arange(width) % 256, np.arange(height) % 256)
    return Image.fromarray(np.stack([columns, rows, columns // 256], axis=-1).astype(np.uint8))


def test_training_and_validation_cells_do_not_overlap() -> None:
    (left, border), validation = split_columns(451, val_share=0.3)
    assert (left, border, validation) == (0, 316, (316, 451))
    picture = _ruler(256, 100)
    train, val = split_columns(256, val_share=0.3)
    largest = max(int(np.asarray(cell)[..., 0].max()) for cell in cut(picture, train, (2, 4)))
    smallest = min(int(np.asarray(cell)[..., 0].min()) for cell in cut(picture, val, (2, 2)))
    assert (largest, smallest) == (178, 179)


def test_cells_are_spread_from_edge_to_edge() -> None:
    cells = cut(_ruler(200, 130), (0, 200), (2, 3))
    corners = [tuple(int(value) for value in np.asarray(cell)[0, 0, :2]) for cell in cells]
    assert corners == [(0, 0), (68, 0), (136, 0), (0, 66), (68, 66), (136, 66)]
    assert {cell.size for cell in cells} == {(CELL_PX, CELL_PX)}


def test_written_cells(tmp_path: Path) -> None:
    assert write_cells(tmp_path / "clean", train_grid=(2, 2), val_grid=(1, 1)) == 12 * 5
    names = list_images(tmp_path / "clean")
    assert len([name for name in names if name.startswith("val/")]) == 12
    assert (tmp_path / "clean" / "labels.txt").read_text().splitlines()[0] == "astronaut,astronaut"
    picture = photographs()["astronaut"]
    first = Image.open(tmp_path / "clean" / "train" / "astronaut" / "astronaut_0.png")
    assert np.array_equal(np.asarray(first), np.asarray(picture.crop((0, 0, 64, 64))))
    with pytest.raises(OutputFolderError, match="train: there"):
        write_cells(tmp_path / "clean", train_grid=(3, 2), val_grid=(1, 1))


def test_all_arms_have_the_same_budget() -> None:
    recipe = Recipe.load()
    epochs = int(recipe.content.training.optim.epochs)
    for arm in recipe.arms:
        assert sum(int(stage["epochs"]) for stage in arm.stages) == epochs
        parse_curriculum({"stages": arm.stages}, total_epochs=epochs)
    assert [arm.name for arm in recipe.arms] == ["noisy", "denoised", "nc", "nct"]
    assert [arm.switch_epochs for arm in recipe.arms] == [[], [], [(12, "noisy")], [(12, "noisy")]]
    assert len(PICTURES) == 12


def test_config_of_an_arm_is_guarded_and_saves_a_teacher_at_its_end(tmp_path: Path) -> None:
    recipe = Recipe.load()
    recipe.write_config(recipe.arms[3], "ImageNet:split=TRAIN:root=r:denoised=d", tmp_path / "nct.yaml")
    text = (tmp_path / "nct.yaml").read_text()
    assert f"scaling_rule: ${{{GUARD}:sqrt_wrt_1024}}" in text
    config = OmegaConf.load(tmp_path / "nct.yaml")
    assert recipe.iterations == 200
    assert config.evaluation.eval_period_iterations == 40
    assert config.curriculum.stages[1].anchor.weight == 1.0


def test_a_demo_without_a_fifth_is_measured_at_its_end() -> None:
    content = OmegaConf.merge(
        Recipe.load().content, {"training": {"optim": {"epochs": 7}, "train": {"OFFICIAL_EPOCH_LENGTH": 3}}}
    )
    assert isinstance(content, DictConfig)
    assert Recipe(content).measure_period == 21


@pytest.mark.slow
@pytest.mark.upstream
def test_the_whole_demo_small_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step through upstream's scripts; a second call finds all of it done and writes the same table."""
    from dinov2_noise.demo.run import run_demo

    for key, value in clean_environment().items():
        monkeypatch.setenv(key, value)
    small = {
        "cells": {"train_grid": [3, 3], "val_grid": [2, 2]},
        "denoiser": {"steps": 4, "n_feature": 4},
        "evaluation": {"linear": {"iterations": 2, "learning_rates": [0.1]}},
        "training": {"train": {"batch_size_per_gpu": 4, "OFFICIAL_EPOCH_LENGTH": 1}},
    }
    content = OmegaConf.merge(Recipe.load().content, small)
    assert isinstance(content, DictConfig)
    report = run_demo(tmp_path / "demo", Recipe(content))
    with (tmp_path / "demo" / "results.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert [row[1] for row in rows[1:6]] == ["noisy", "denoised", "noisy", "noisy", "noisy"]
    assert rows[6][0] == "chance"
    assert float(rows[6][2]) == pytest.approx(100 / 12, abs=0.06)
    html = report.read_text()
    assert html.count("data:image/png;base64,") > 10
    assert all(f'id="{key}"' in html for key in ("demo", "seen", "results", "curves", "maps", "neighbours", "costs"))
    assert "NCT (NC with anchor)" in html
    assert read_manifest(tmp_path / "demo" / "noisy")["complete"] is True
    records = sorted((tmp_path / "demo" / "records").glob("*.json"))
    assert len(records) == 10
    times = [path.stat().st_mtime_ns for path in records]
    run_demo(tmp_path / "demo", Recipe(content))
    assert [path.stat().st_mtime_ns for path in records] == times
    with (tmp_path / "demo" / "results.csv").open() as stream:
        assert list(csv.reader(stream)) == rows
