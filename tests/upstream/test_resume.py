"""Saving and resuming with upstream's checkpointer as we replace it: one process, a small network, real files."""

from __future__ import annotations

import logging
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import run_python
from omegaconf import OmegaConf
from torch import nn

from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.stages import build
from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream import rng, runtime
from dinov2_noise.upstream.checkpoint_files import read_checkpoint
from dinov2_noise.upstream.trial_save import _warn_of_later

pytestmark = pytest.mark.upstream

N_PARAMETERS = 64 * 512 + 512


@pytest.fixture(scope="module", autouse=True)
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def run() -> Iterator[runtime.Run]:
    """A run of eight epochs with four iterations each, two images per step."""
    cfg = OmegaConf.create({"train": {"batch_size_per_gpu": 2, "seed": 3}, "optim": {"epochs": 8}})
    config = parse_curriculum({"stages": [{"name": "noisy", "epochs": 8, "view": "noisy"}]}, total_epochs=8)
    started = runtime.Run(cfg, config, build(config, 4))
    runtime.start(started)
    yield started
    runtime.start(None)


def checkpointer(folder: Path, seed: int = 0) -> Any:
    """Upstream's class, as the plug-in replaces it, on a network that has made one step."""
    from dinov2.fsdp import FSDPCheckpointer

    network = nn.Module()
    torch.manual_seed(seed)
    network.student = nn.Linear(64, 512)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network.student(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    folder.mkdir(exist_ok=True)
    return FSDPCheckpointer(network, str(folder), optimizer=optimizer)


@contextmanager
def room_for(n_bytes: int) -> Iterator[None]:
    """A limit on the size of files stands for the disk's end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def images_per_process(run: runtime.Run, images: int) -> Iterator[None]:
    before = run.cfg.train.batch_size_per_gpu
    run.cfg.train.batch_size_per_gpu = images
    yield
    run.cfg.train.batch_size_per_gpu = before


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]  # noqa: NPY002


def test_generators_go_on_where_they_were_saved(run: runtime.Run, tmp_path: Path) -> None:
    np.random.randn()  # noqa: NPY002 - leaves a second number behind, which belongs to the state
    random.gauss(0, 1)
    checkpointer(tmp_path).save("model_0000000", iteration=0)
    expected = draws()
    resumed = checkpointer(tmp_path, seed=1)
    run.first_iteration = 1
    assert resumed.resume_or_load("", resume=True)["iteration"] == 0
    torch.rand(())  # as the data loader, which draws when it starts
    assert draws() != expected
    rng.restore_pending(run)
    assert draws() == expected
    rng.restore_pending(run)
    assert draws() != expected, "once only"


def test_another_number_of_processes_is_seeded_from_the_run(run: runtime.Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dinov2")

    def drawn(saved: Any, iteration: int) -> list[float]:
        run.pending_rng = rng.plan(saved, run, iteration)
        rng.restore_pending(run)
        return draws()

    two_ranks = [rng.capture(), rng.capture()]
    assert drawn(two_ranks, 5) == drawn(two_ranks, 5)
    assert drawn(two_ranks, 5) != drawn(two_ranks, 6)
    assert "holds the random state of 2 processes, this run has 1" in caplog.text
    assert drawn(None, 5) == drawn(two_ranks, 5)
    assert "holds no random state" in caplog.text


def test_a_checkpoint_of_the_version_before_loads(run: runtime.Run, tmp_path: Path) -> None:
    """It had no ``rng``."""
    saving = checkpointer(tmp_path)
    saving.save("model_0000000", iteration=0)
    content = torch.load(tmp_path / "model_0000000.pth", weights_only=True)
    del content["rng"]
    torch.save(content, tmp_path / "model_0000000.pth")
    run.first_iteration = 1
    resumed = checkpointer(tmp_path, seed=1)
    resumed.resume_or_load("", resume=True)
    assert torch.equal(resumed.model.student.weight, saving.model.student.weight)
    moments = [next(iter(each.checkpointables["optimizer"].optimizer.state.values())) for each in (saving, resumed)]
    assert torch.equal(moments[0]["exp_avg"], moments[1]["exp_avg"])


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    else:
        torch.save({"teacher": {"backbone.cls_token": torch.zeros(1)}}, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"model_0000005\.pth is truncated or no checkpoint: 4\d\d,\d\d\d bytes"),
        ("empty", r"model_0000005\.pth is truncated or no checkpoint: 0 bytes"),
        ("missing", r"model_0000005\.pth does not exist"),
        ("teacher", r"model_0000005\.pth is not a checkpoint of a training run: it holds the entries 'teacher'"),
    ],
)
def test_a_damaged_checkpoint_names_the_newest_intact_one(tmp_path: Path, how: str, message: str) -> None:
    saving = checkpointer(tmp_path)
    for iteration in (1, 3, 5):
        saving.save(f"model_{iteration:07d}", iteration=iteration)
    damage(tmp_path / "model_0000005.pth", how)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpointer(tmp_path).resume_or_load("", resume=True)
    assert f"run `echo model_0000003.pth > {tmp_path / 'last_checkpoint'}` and start again" in str(caught.value)
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth\n")
    assert checkpointer(tmp_path).resume_or_load("", resume=True)["iteration"] == 3


def test_no_intact_checkpoint_left(tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("")
    with pytest.raises(CheckpointError, match=r"last_checkpoint names no checkpoint\. No other checkpoint there is"):
        checkpointer(tmp_path).resume_or_load("", resume=True)


def test_a_later_save_on_a_full_disk_leaves_the_one_before(run: runtime.Run, tmp_path: Path) -> None:
    saving = checkpointer(tmp_path)
    saving.save("model_0000001", iteration=1)
    with room_for(300_000), pytest.raises(CheckpointError, match=r"model_0000003\.pth could not be written.*too large"):
        saving.save("model_0000003", iteration=3)
    assert files(tmp_path) == ["last_checkpoint", "model_0000001.pth"]
    run.first_iteration = 2
    resumed = checkpointer(tmp_path, seed=1)
    assert resumed.resume_or_load("", resume=True)["iteration"] == 1
    assert torch.equal(resumed.model.student.weight, saving.model.student.weight)


def test_trial_save_is_as_large_as_a_checkpoint(run: runtime.Run, tmp_path: Path) -> None:
    """Model and two moments in float32; a file of exactly that size fits, one of a tenth less does not."""
    with room_for(4 * 3 * N_PARAMETERS + 20_000):
        checkpointer(tmp_path).resume_or_load("", resume=True)
    assert files(tmp_path) == []
    with room_for(4 * 3 * N_PARAMETERS * 9 // 10), pytest.raises(CheckpointError) as caught:
        checkpointer(tmp_path).resume_or_load("", resume=True)
    assert files(tmp_path) == []
    message = str(caught.value)
    assert f"no checkpoint can be written into {tmp_path}" in message
    assert "one needs 405 kB" in message
    # 32 iterations with a save every 12: two on the way, and model_final
    assert "room for 3, 1.2 MB (DINOv2 keeps the last 3 and model_final)" in message
    with room_for(4 * 3 * N_PARAMETERS * 9 // 10):
        object.__setattr__(run.health, "trial_save", False)
        checkpointer(tmp_path).resume_or_load("", resume=True)
    checkpointer(tmp_path).save("model_0000000", iteration=0)
    assert 390_000 < (tmp_path / "model_0000000.pth").stat().st_size < 420_000


def test_room_for_one_checkpoint_but_not_for_all_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_later(tmp_path, 10**15, 4)
    assert "this run needs room for 4, 4000000.0 GB (DINOv2 keeps the last 3 and model_final): training will stop" in (
        caplog.text
    )


def test_leftovers_of_a_killed_save_are_deleted(run: runtime.Run, tmp_path: Path) -> None:
    for name in (".model_0000005.123.partial.pth", ".trial_save.123.partial.pth", ".last_checkpoint.123.partial"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".other.partial.pth").write_bytes(b"not ours")
    checkpointer(tmp_path).resume_or_load("", resume=True)
    assert files(tmp_path) == [".other.partial.pth"]


def test_a_checkpoint_is_mapped_and_stays_as_it_is(tmp_path: Path) -> None:
    checkpointer(tmp_path).save("model_0000003", iteration=3)
    path = tmp_path / "model_0000003.pth"
    before = path.read_bytes()
    content = read_checkpoint(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    content["model"]["student.weight"].zero_()
    assert path.read_bytes() == before
    unmapped = torch.load(path, weights_only=True)
    torch.save(unmapped, path, _use_new_zipfile_serialization=False)
    older = read_checkpoint(path)
    assert torch.equal(older["model"]["student.weight"], unmapped["model"]["student.weight"])


def test_begun_anew_it_does_not_resume_the_run_before(
    run: runtime.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dinov2")
    checkpointer(tmp_path).save("model_0000011", iteration=11)
    (tmp_path / "last_checkpoint.rank_0").write_text("model_0000009.rank_0.pth")
    assert checkpointer(tmp_path).resume_or_load("", resume=False) == {}
    names = ["last_checkpoint.old", "last_checkpoint.rank_0.old", "model_0000011.pth"]
    assert files(tmp_path) == names
    assert "which names model_0000011.pth of the run before, is now last_checkpoint.old" in caplog.text
    assert checkpointer(tmp_path).resume_or_load("", resume=True) == {}, "interrupted before its first save"
    checkpointer(tmp_path).save("model_0000003", iteration=3)
    run.first_iteration = 4
    assert checkpointer(tmp_path).resume_or_load("", resume=True)["iteration"] == 3


def test_off_and_in_evaluation_nothing_is_renamed(run: runtime.Run, tmp_path: Path) -> None:
    checkpointer(tmp_path).save("model_0000011", iteration=11)
    type(checkpointer(tmp_path))(checkpointer(tmp_path).model, str(tmp_path)).resume_or_load("", resume=False)
    runtime.start(None)
    checkpointer(tmp_path).resume_or_load("", resume=False)
    assert files(tmp_path) == ["last_checkpoint", "model_0000011.pth"]


def test_evaluation_runs_on_any_number_of_processes(run: runtime.Run, tmp_path: Path) -> None:
    training = checkpointer(tmp_path)
    training.save("model_0000003", iteration=3)
    run.first_iteration = 4
    with images_per_process(run, images=1):
        evaluating = type(training)(checkpointer(tmp_path, seed=1).model, save_dir=str(tmp_path))
        assert evaluating.resume_or_load("", resume=True)["iteration"] == 3
        assert torch.equal(evaluating.model.student.weight, training.model.student.weight)
        with pytest.raises(CheckpointError, match="made with 2 images per step, this run has 1"):
            checkpointer(tmp_path).resume_or_load("", resume=True)


def test_a_renamed_checkpoint_is_not_taken_for_another_iteration(run: runtime.Run, tmp_path: Path) -> None:
    checkpointer(tmp_path).save("model_0000003", iteration=3)
    (tmp_path / "model_0000003.pth").rename(tmp_path / "model_0000007.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000007.pth")
    run.first_iteration = 8
    with pytest.raises(CheckpointError, match=r"rank 0: the checkpoint was saved after iteration 3, last_.* with 8\n"):
        checkpointer(tmp_path).resume_or_load("", resume=True)


def test_two_processes(tmp_path: Path) -> None:
    """The verdicts that ranks give each other, in two real processes."""
    script = Path(__file__).with_name("two_ranks_and_a_disk.py")
    launcher = (
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--log-dir",
        str(tmp_path / "log"),
    )
    done = run_python(*launcher, "--tee", "3", str(script), str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("as expected") == 2
