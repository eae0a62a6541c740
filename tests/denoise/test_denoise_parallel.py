"""Which process this is, its GPU, and commands that start several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_python
from PIL import Image
from torch import distributed as dist

from dinov2_noise.denoise.device import choose_device, own_gpu
from dinov2_noise.denoise.parallel import Processes, joined, of_first, wait_for_all
from dinov2_noise.errors import ConfigError
from neighbor2neighbor import load_checkpoint

SMALL = ("--steps=2", "--batch-size=2", "--crop=64", "--n-feature=4", "--sample-every=0", "--device=cpu")


def test_processes_are_read_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Processes.from_environment({}) == Processes(0, 1, 0)
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert Processes.from_environment(torchrun) == Processes(5, 8, 1)
    # A shell inside of an allocation, or one that srun started, is no launcher of ours.
    assert Processes.from_environment({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}) == Processes()
    with pytest.raises(ConfigError, match="RANK, WORLD_SIZE and LOCAL_RANK must be numbers"):
        Processes.from_environment({"RANK": "first", "WORLD_SIZE": "8"})
    job = {"EXECUTOR": "slurm"}
    task = {"JOB_ID": "77", "NTASKS": "4", "PROCID": "3", "LOCALID": "1", "NODEID": "1", "JOB_NUM_NODES": "2"}
    for name, value in [*((f"SUBMITIT_{key}", job[key]) for key in job), *((f"SLURM_{k}", task[k]) for k in task)]:
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[11-12]")
    found = Processes.from_environment()
    assert (found.rank, found.world_size, found.local_rank, found.is_first) == (3, 4, 1, False)
    assert found.meeting_point.startswith("tcp://node11:")
    # torchrun inside of a job: the nearer launcher counts.
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert Processes.from_environment() == Processes(5, 8, 1)


def test_each_process_gets_its_gpu() -> None:
    assert [own_gpu(rank, 4) for rank in range(4)] == [0, 1, 2, 3]
    assert own_gpu(3, 1) == 0, "the launcher shows each process one"
    with pytest.raises(ConfigError, match="process 2 of this machine finds 2 GPUs only"):
        own_gpu(2, 2)
    assert choose_device("cpu", Processes(1, 2, 1)) == torch.device("cpu")
    with pytest.raises(ConfigError, match="unknown"):
        choose_device("gpu")


def test_a_single_process_needs_no_group() -> None:
    with joined(Processes(), torch.device("cpu")):
        assert not dist.is_initialized()
        assert of_first("mine") == "mine"
        wait_for_all()


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    (tmp_path / "noisy").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, size=(70, 80, 3), dtype=np.uint8)).save(tmp_path / f"noisy/{number}.png")
    return tmp_path / "noisy"


@pytest.mark.slow
def test_gpus_starts_the_command_in_several_processes(noisy: Path, tmp_path: Path) -> None:
    done = run_python("-m", "dinov2_noise", "denoise", "train", "noisy", "out", *SMALL, "--gpus", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "weights: out/denoiser.pth\n"
    assert load_checkpoint(tmp_path / "out" / "denoiser.pth").n_feature == 4


def test_a_mistake_that_one_process_finds_is_told_at_the_end(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    done = run_python("-m", "dinov2_noise", "denoise", "train", "noisy", "out", *SMALL, "--gpus", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, "of the other one, which waits for the first"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: LaunchError: process 0 (pid ")
    assert "stopped with OutputFolderError: output folder out is not empty" in last
