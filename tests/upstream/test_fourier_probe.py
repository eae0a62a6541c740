"""The Fourier heat map of a backbone: what the network is shown, and the command from files to record and picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet
from omegaconf import OmegaConf
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.counting import count
from dinov2_noise.evaluation.fourier import FourierGrid

pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module")
def request_of_a_map(small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """3 x 3 frequencies on all 10 validation images, for a network that has not been trained, with k-NN."""
    from dinov2_noise.upstream.backbone import build_backbone
    from dinov2_noise.upstream.probing.fourier import FourierRequest
    from dinov2_noise.upstream.probing.probe import ProbeRequest

    folder = tmp_path_factory.mktemp("fourier")
    student = {"arch": "vit_tiny", "patch_size": 32, "block_chunks": 0, "layerscale": 1.0}
    OmegaConf.save(OmegaConf.create({"student": student}), folder / "config.yaml")
    torch.manual_seed(0)
    state = build_backbone(str(folder / "config.yaml")).state_dict()
    torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, folder / "weights.pth")
    train, val = (f"ImageNet:split={split}:root={small_set.clean}" for split in ("TRAIN", "VAL"))
    probe = ProbeRequest(
        folder / "config.yaml", folder / "weights.pth", val, train_dataset=train, knn=(3,), batch_size=4, workers=0
    )
    return FourierRequest(probe, folder / "map", FourierGrid(3), norm=40.0, n_images=10)


def test_the_perturbation_meets_the_resized_and_cropped_8_bit_image(request_of_a_map: Any, small_set: SmallSet) -> None:
    from dinov2_noise.upstream.probing.fourier import load_pictures

    pictures = load_pictures(request_of_a_map.probe, 4, seed=0)
    names = sorted(str(path) for path in (small_set.clean / "val").rglob("*.JPEG"))
    for pixels, index in zip(pictures.pixels, (0, 3, 6, 9), strict=True):
        with Image.open(names[index]) as image:
            enlarged = image.convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(enlarged)[16:240, 16:240])
    assert pictures.targets.tolist() == [index // 2 for index in (0, 3, 6, 9)]


def test_clean_and_vanishing_perturbations_give_the_accuracy_of_the_benchmark(
    request_of_a_map: Any, tmp_path: Path
) -> None:
    from dinov2_noise.upstream.probing.probe import load

    weak = replace(request_of_a_map, norm=1e-5, output=tmp_path)
    loaded = load(weak.probe)
    probe, counter = loaded.probe(tmp_path), weak.counter(loaded)
    ((_, found),) = count([weak.probe.val_dataset], probe.predict, probe.settings, description="clean")
    for frequency in (None, (0, 0), (0, 112), (37, -80)):
        assert counter(frequency) == found.right


def test_the_command_measures_keeps_and_draws(request_of_a_map: Any) -> None:
    from dinov2_noise.upstream.probing.probe import load

    request = request_of_a_map
    command = [
        *("evaluate", "fourier", "--config-file", str(request.probe.config_file)),
        *("--weights", str(request.probe.weights), "--val-dataset", request.probe.val_dataset),
        *("--train-dataset", request.probe.train_dataset, "--knn", "3", "--output", str(request.output)),
        *("--grid", "3", "--norm", "40", "--batch-size", "4", "--workers", "1", "--name", "untrained"),
    ]
    for shard, words in (("1/2", "2 frequencies are left"), ("2/2", "fourier-knn3.png")):
        done = CliRunner().invoke(app, [*command, "--shard", shard])
        assert done.exit_code == 0, done.output
        assert words in done.output
    record = json.loads((request.output / "fourier.json").read_text())
    assert record["n_images"] == 10
    assert record["frequencies_cycles_per_px"] == [-0.5, 0, 0.5]
    counter = request.counter(load(request.probe))
    values = record["accuracy"]["knn3"]
    for row, column in ((0, 0), (1, 1), (2, 1), (0, 1)):
        frequency = ((row - 1) * 112, (column - 1) * 112)
        assert values[row][column] == counter(frequency)["knn3"] / 10
    assert len(set(np.ravel(values))) > 1  # so strong a perturbation changes something
    assert record["clean_accuracy"]["knn3"] == counter(None)["knn3"] / 10
    with Image.open(request.output / "fourier-knn3.png") as picture:
        assert picture.size == (1200, 1040)
    # Again: nothing is left to do, and the record stays; another norm is refused.
    before = (request.output / "cells" / "clean.json").stat().st_mtime_ns
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (request.output / "cells" / "clean.json").stat().st_mtime_ns == before
    refused = CliRunner().invoke(app, [*command, "--norm", "20"])
    assert refused.exit_code != 0


@pytest.mark.parametrize("change", [{"norm": 0.0}, {"norm": -1.0}, {"n_images": 0}])
def test_what_makes_no_map_is_an_error(request_of_a_map: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--norm"):
        replace(request_of_a_map, **change).folder()
