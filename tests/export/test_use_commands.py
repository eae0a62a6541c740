"""The commands on a run that upstream's own training wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import SmallSet, run_python
from omegaconf import OmegaConf
from typer.testing import CliRunner

import dinov2_noise
from dinov2_noise.cli import app, main

pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module")
def real_run(small_set: SmallSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network without a step, written by upstream's training script."""
    folder = tmp_path_factory.mktemp("real") / "random"
    config = {
        "student": {"arch": "vit_tiny", "patch_size": 16},
        "crops": {"global_crops_size": 64, "local_crops_size": 32},
        "dino": {"head_n_prototypes": 16, "head_hidden_dim": 16, "head_bottleneck_dim": 8},
        "train": {"dataset_path": small_set.pair(), "batch_size_per_gpu": 2, "num_workers": 0},
    }
    OmegaConf.save(OmegaConf.create(config), folder.parent / "own.yaml")
    options = ["--config-file", str(folder.parent / "own.yaml"), "--output-dir", str(folder), "--eval-only"]
    done = run_python("-m", "dinov2.train.train", *options)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_from_a_run_to_files_and_a_table(real_run: Path, small_set: SmallSet, tmp_path: Path) -> None:
    exported, table = tmp_path / "exported", tmp_path / "features.npz"
    command = ["export", str(real_run), "--to", "safetensors", "--output", str(exported), "--size", "64"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "an image of the training set: largest difference 0.0e+00 in class tokens" in done.output
    assert "- noise: gauss100, stored, seed 42" in (exported / "README.md").read_text(encoding="utf-8")
    images = f"ImageNet:split=VAL:root={small_set.noisy}"
    done = CliRunner().invoke(app, ["embed", images, "--run", str(exported), "--out", str(table), "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "features.npz: 10 images, 192 numbers each, in " in done.output.replace("\n", "")
    found = np.load(table)
    assert sorted(set(found["label"])) == ["n0", "n1", "n2", "n3", "n4"]
    expected = dinov2_noise.load(real_run, size_px=64).embed([str(path) for path in found["path"]])
    np.testing.assert_allclose(found["feature"], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "command", ["export {empty} --to hf --output {x}", "embed {empty} --run {empty} --out {x}.npy"]
)
def test_an_error_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    words = [word.format(empty=tmp_path / "empty", x=tmp_path / "x") for word in command.split()]
    monkeypatch.setattr("sys.argv", ["dinov2-noise", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: MissingFolderError: run folder")
    assert said.endswith("empty is empty: give the folder that a training wrote (its --output)")
