"""`dinov2-noise denoise train --slurm`, with SLURM's programs replaced by scripts; submitit and the job are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.denoise import train_denoiser
from dinov2_noise.denoise_cli import denoise_app
from dinov2_noise.errors import ConfigError
from dinov2_noise.launch import LaunchError
from neighbor2neighbor import load_checkpoint

SMALL = ("--steps=2", "--batch-size=2", "--crop=64", "--n-feature=4", "--sample-every=0")


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    folder = tmp_path / "noisy"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, size=(70, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def submit(noisy: Path, output: Path, *options: str) -> str:
    done = CliRunner().invoke(
        denoise_app, ["train", *SMALL, *options, "--", str(noisy), str(output)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_tasks_of_a_job_train_as_one_process_does(noisy: Path, tmp_path: Path, slurm: Any) -> None:
    output = tmp_path / "out"
    said = submit(noisy, output, "--slurm", "--gpus", "2", "--slurm-option", "partition=long", "--slurm-option=time=90")
    assert f"submitted as job 101; logs: {tmp_path / 'out-slurm'}" in said
    job = slurm.job("101")
    assert {key: job[key] for key in ("nodes", "ntasks-per-node", "gpus-per-node", "partition", "time")} == {
        "nodes": "1",
        "ntasks-per-node": "2",
        "gpus-per-node": "2",
        "partition": "long",
        "time": "90",
    }
    assert "--kill-on-bad-exit=1" in (slurm.folder / "job-101.sh").read_text()
    assert not output.exists()
    logs = tmp_path / "out-slurm"
    assert slurm.run("101", tmp_path) == 0, [path.read_text()[-2000:] for path in logs.glob("*_log.err")]
    train_denoiser(
        noisy, tmp_path / "one", steps=2, batch_size=2, crop_px=64, n_feature=4, sample_every=0, progress=False
    )
    expected = load_checkpoint(tmp_path / "one" / "denoiser.pth").state_dict()
    for name, value in load_checkpoint(output / "denoiser.pth").state_dict().items():
        assert float((value - expected[name]).abs().max()) < 2e-6, name
    assert len((output / "loss.jsonl").read_text().splitlines()) == 2, "one process writes"


def test_a_job_of_the_same_output_that_waits_is_not_joined_by_another(noisy: Path, tmp_path: Path, slurm: Any) -> None:
    submit(noisy, tmp_path / "out", "--slurm")
    (slurm.folder / "queue").write_text("7\n101\n")
    with pytest.raises(LaunchError, match=r"job 101 trains .*out already, or waits for it: .*scancel 101"):
        submit(noisy, tmp_path / "out", "--slurm")
    assert "job 102" in submit(noisy, tmp_path / "other", "--slurm")
    (slurm.folder / "queue").write_text("7\n")
    assert "job 103" in submit(noisy, tmp_path / "out", "--slurm")


def test_mistakes_are_told_before_the_submission(noisy: Path, tmp_path: Path, slurm: Any) -> None:
    for options, message in (
        (("--gpus=2", "--nodes=2"), "batch of 2 images cannot be shared out evenly among 4 processes"),
        (("--stride=2",), "crop_px must be a multiple of 128"),
        (("--slurm-option=gpu",), "'gpu' is not of the form key=value"),
    ):
        with pytest.raises(ConfigError, match=message):
            submit(noisy, tmp_path / "out", "--slurm", *options)
    assert (slurm.folder / "count").read_text() == "100", "nothing was submitted"


def test_options_of_slurm_need_slurm(noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("--nodes=2", "--slurm-option=partition=gpu"):
        done = CliRunner().invoke(denoise_app, ["train", str(noisy), str(tmp_path / "out"), option])
        assert done.exit_code == 2
        assert "they belong to --slurm" in done.output
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LaunchError, match="there is no `sbatch` on this machine"):
        submit(noisy, tmp_path / "out", "--slurm")
