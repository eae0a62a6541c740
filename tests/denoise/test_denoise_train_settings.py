"""The settings of ``denoise train``: command line, YAML file, and the file it leaves behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from typer.testing import CliRunner

from dinov2_noise.denoise.settings import TrainSettings, as_arguments, by_field, merge_settings, read_settings
from dinov2_noise.denoise_cli import denoise_app, denoise_train
from dinov2_noise.errors import ConfigError, MissingFolderError
from dinov2_noise.files import read_manifest
from neighbor2neighbor import TrainingConfig, load_checkpoint

Make = Callable[..., Path]
QUICK = ("--steps", "2", "--batch-size", "2", "--crop", "64", "--n-feature", "4", "--sample-every", "0")


def weights_of(path: Path) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in load_checkpoint(path).parameters()])


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(denoise_app, ["train", *map(str, arguments)])
    assert result.exception is None, result.output
    return result


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_config_left_behind_reproduces_the_run(make_images: Make, tmp_path: Path) -> None:
    sizes = {f"{label}/{number}.png": (64, 64 + 10 * number) for label in "ab" for number in range(4)}
    noisy = make_images(tmp_path / "noisy", sizes)
    options = ("--per-class", "2", "--max-side", "90", "--lr", "1e-3", "--residual", "--ema", "0.5", "--seed", "3")
    run(noisy, tmp_path / "first", *QUICK, *options, "--crop", "128")  # shrinks to 64
    config = tmp_path / "first" / "config.yaml"
    assert "is complete" in run(noisy, tmp_path / "first", "--config", config, "--sample-every", "0").output
    run(noisy, tmp_path / "again", "--config", config, "--sample-every", "0")
    assert (tmp_path / "again" / "config.yaml").read_text() == config.read_text()
    expected = weights_of(tmp_path / "first" / "denoiser.pth")
    assert torch.equal(weights_of(tmp_path / "again" / "denoiser.pth"), expected)
    first, again = (read_manifest(tmp_path / name) for name in ("first", "again"))
    assert first["images"] == 4
    assert first["parameters"] == again["parameters"]
    assert first["parameters"]["side_range_px"] == [0, 90]
    # The command line wins.
    run(noisy, tmp_path / "other", "--config", config, "--seed", "4", "--no-residual", "--sample-every", "0")
    assert not load_checkpoint(tmp_path / "other" / "denoiser.pth").residual
    assert read_manifest(tmp_path / "other")["parameters"]["seed"] == 4


def test_old_name_of_per_class(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {f"{number}.png": (64, 64) for number in range(3)})
    run(noisy, tmp_path / "out", *QUICK, "--images-per-class", "1")
    assert read_manifest(tmp_path / "out")["images"] == 1


def test_new_settings_at_their_defaults_are_not_in_the_manifest(make_images: Make, tmp_path: Path) -> None:
    """Otherwise folders of older versions would count as others."""
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    run(noisy, tmp_path / "out", *QUICK)
    run(noisy, tmp_path / "ema", *QUICK, "--ema", "0.9")
    known = {"noisy", "images_per_class", "side_range_px", "epochs", "steps", "batch_size", "crop_px", "learning_rate"}
    known |= {"gamma", "milestones", "increase_ratio", "n_feature", "residual", "seed"}
    assert {*read_manifest(tmp_path / "out")["parameters"]} == known
    assert {*read_manifest(tmp_path / "ema")["parameters"]} == known | {"ema"}


def test_names_and_types_of_a_file(tmp_path: Path) -> None:
    text = "crop: 128\nlr: 1e-3\nimages_per_class: 5\nmilestones: [0.5]\nresidual: true\nvalidation: v\n"
    settings = read_settings(write(tmp_path / "c.yaml", text))
    assert settings == {
        "crop_px": 128,
        "learning_rate": 0.001,
        "per_class": 5,
        "milestones": (0.5,),
        "residual": True,
        "validation": "v",
    }
    for text, message in (
        ("stpes: 3", r"c\.yaml: unknown key 'stpes': valid keys are batch_size, crop, crop_px, device, ema, epochs"),
        ("steps: many", r"c\.yaml: steps: Value 'many' of type 'str' could not be converted to Integer"),
        ("steps: 2.5", "steps: Value '2.5'"),
        ("milestones: [a]", "milestones: one of its values could not be converted to Float"),
        ("lr: 1\nlearning_rate: 1", "learning_rate is given twice"),
        ("- 3", "must hold lines such as"),
        ("steps: [", "is not YAML"),
        ("steps: ${nothing}", "is not YAML"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_settings(write(tmp_path / "c.yaml", text))
    with pytest.raises(MissingFolderError, match=r"absent\.yaml does not exist"):
        read_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="validation needs both folders"):
        as_arguments({"validation": "v"})


def test_epochs_of_the_command_line_win_over_steps_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "steps: 3\nepochs: 100\n")
    assert merge_settings(path, {"epochs": 2}) == {"epochs": 2}
    assert merge_settings(path, {"epochs": 2, "steps": 7}) == {"epochs": 2, "steps": 7}
    assert merge_settings(path, {"seed": 1}) == {"steps": 3, "epochs": 100, "seed": 1}
    assert merge_settings(None, {"lr": 1.0}) == {"learning_rate": 1.0}


def test_every_option_may_stand_in_a_file_and_shows_the_true_default() -> None:
    ours = {field.name: field.default for field in fields(TrainSettings)}
    elsewhere = {"context", "noisy", "output", "config", "gpus", "slurm", "nodes", "slurm_option"}
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(denoise_train).parameters.items()
        if name not in elsewhere
    }
    assert by_field({name: value for name, value in options.items()}) == {
        name: ours[name] for name in by_field(options)
    }
    # Only from a file: the published values, which nobody should need to change.
    missing = {"gamma", "milestones", "increase_ratio", "noisy", "images"}
    assert {*ours} - {*by_field(options)} == missing
    assert {field.name for field in fields(TrainingConfig)} < {*ours}


def test_settings_of_a_file_reach_the_training(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    path = write(tmp_path / "c.yaml", "gamma: 0.25\nmilestones: [0.5]\nincrease_ratio: 1\n")
    run(noisy, tmp_path / "out", "--config", path, *QUICK)
    log = [OmegaConf.create(line) for line in (tmp_path / "out" / "loss.jsonl").read_text().splitlines()]
    assert [line.learning_rate for line in log] == pytest.approx([3e-4, 0.25 * 3e-4])
    assert [line.weight for line in log] == pytest.approx([0.5, 1.0])
