"""Of two training processes one is killed, stopped, or fails: the other ends within seconds and names it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet, clean_environment
from omegaconf import OmegaConf

pytestmark = pytest.mark.upstream

TIMEOUT_S = 4
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 2, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 2},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 5000, "warmup_epochs": 1},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 1},
    "evaluation": {"eval_period_iterations": 0},
    "health": {"lost_rank_timeout_s": TIMEOUT_S, "period_iterations": 0, "trial_save": False},
    "curriculum": {"stages": [{"name": "noisy", "epochs": "${optim.epochs}", "view": "noisy"}]},
}


class TwoRanks:
    """Two processes with the variables a launcher would set, but no launcher that ends one when the other ends."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path) -> None:
        self._nursery, self.folder = nursery, folder
        self.pids: list[int] = []

    def start(self, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        for rank in ("0", "1"):
            environment = group | {"RANK": rank, "LOCAL_RANK": rank}
            self.pids.append(
                self._ask(start=arguments, environment=environment, output=str(self.folder / f"output{rank}"))
            )

    def _ask(self, **request: Any) -> int:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(request) + "\n")
        self._nursery.stdin.flush()
        return int(self._nursery.stdout.readline())

    def end_of(self, rank: int) -> tuple[int, str]:
        """Exit status and output."""
        status = self._ask(wait=self.pids[rank])
        self.pids[rank] = 0
        return status, (self.folder / f"output{rank}").read_text()

    def end(self) -> None:
        for rank, pid in enumerate(self.pids):
            if pid:
                os.kill(pid, signal.SIGKILL)
                self.end_of(rank)


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("several_trainings.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def ranks(nursery: subprocess.Popen[str], tmp_path: Path) -> Iterator[TwoRanks]:
    group = TwoRanks(nursery, tmp_path)
    yield group
    group.end()


@pytest.fixture
def arguments(small_set: SmallSet, tmp_path: Path) -> Callable[..., list[str]]:
    """A function (options …) → arguments of upstream's training into ``<tmp_path>/run``."""

    def make(*options: str) -> list[str]:
        OmegaConf.save(OmegaConf.create(CONFIG), tmp_path / "config.yaml")
        return [
            *("--config-file", str(tmp_path / "config.yaml"), "--output-dir", str(tmp_path / "run")),
            *(f"train.dataset_path=ImageNet:split=TRAIN:root={small_set.noisy}", *options),
        ]

    return make


def _wait_for_training(run: Path) -> None:
    end = time.monotonic() + 60
    while not (run / "training_metrics.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (run / "training_metrics.json").exists()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_is_named(lost: int, ranks: TwoRanks, arguments: Callable[..., list[str]]) -> None:
    ranks.start(*arguments())
    _wait_for_training(ranks.folder / "run")
    pid = ranks.pids[lost]
    os.kill(pid, signal.SIGKILL)
    before = time.monotonic()
    status, output = ranks.end_of(1 - lost)
    assert time.monotonic() - before < 10
    assert status == 75
    last_line = output.strip().splitlines()[-1]
    assert f"process {lost} of 2 (host {socket.gethostname()}, pid {pid}) ended without a word" in last_line
    log = ranks.folder / "run" / "logs" / ("log.txt.rank1" if lost == 0 else "log.txt")
    assert f"process {lost} of 2 (host {socket.gethostname()}, pid {pid}) ended" in log.read_text()


def test_a_stopped_process_counts_as_lost(ranks: TwoRanks, arguments: Callable[..., list[str]]) -> None:
    ranks.start(*arguments())
    _wait_for_training(ranks.folder / "run")
    os.kill(ranks.pids[1], signal.SIGSTOP)
    before = time.monotonic()
    status, output = ranks.end_of(0)
    assert TIMEOUT_S - 1.5 < time.monotonic() - before < TIMEOUT_S + 10
    assert status == 75
    assert "process 1 of 2" in output
    assert f"pid {ranks.pids[1]}) gave no sign of life for {TIMEOUT_S} s" in output.strip().splitlines()[-1]


def test_an_error_in_one_process_is_told_by_the_other(
    ranks: TwoRanks, arguments: Callable[..., list[str]], small_set: SmallSet, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    for number in range(6):
        (broken / "a").mkdir(parents=True, exist_ok=True)
        # The processes share the images: only one of the two meets the broken one.
        content = (small_set.clean / "train" / "n0" / "n0_0.JPEG").read_bytes()
        (broken / "a" / f"{number}.jpg").write_bytes(content if number else content[:300])
    ranks.start(*arguments(f"train.dataset_path=ImageFolder:root={broken}"))
    ends = [ranks.end_of(rank) for rank in (0, 1)]
    failed = 0 if ends[0][0] == 1 else 1
    assert [status for status, _ in ends] == ([1, 75] if failed == 0 else [75, 1])
    assert "stops too" not in ends[failed][1]
    assert "ImageError: cannot use image" in ends[failed][1]
    last_line = ends[1 - failed][1].strip().splitlines()[-1]
    assert f"process {failed} of 2" in last_line
    assert f"stopped with ImageError: cannot use image {broken / 'a' / '0.jpg'}" in last_line


def test_an_error_in_all_processes_blames_none(ranks: TwoRanks, arguments: Callable[..., list[str]]) -> None:
    ranks.start(*arguments("student.arch=vit_nothing"))
    for rank in (0, 1):
        status, output = ranks.end_of(rank)
        assert status == 1
        assert "stops too" not in output
        # Not always the last line: an interpreter that ends may add some about threads that are still there.
        assert any(line.endswith("KeyError: 'vit_nothing'") for line in output.splitlines())


def test_a_run_that_ends_in_order_loses_nobody(ranks: TwoRanks, arguments: Callable[..., list[str]]) -> None:
    ranks.start(*arguments("optim.epochs=2", "train.num_workers=1"))
    for rank in (0, 1):
        status, output = ranks.end_of(rank)
        assert status == 0, output
        assert "stops too" not in output
    assert (ranks.folder / "run" / "model_final.pth").exists()


def test_the_command_names_the_killed_process(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    _, config, _, output, *options = arguments()
    command = [sys.executable, "-m", "dinov2_noise", "train", config, "--output", output, "--gpus", "2", *options]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True) as process:
        _wait_for_training(tmp_path / "run")
        pid = int((tmp_path / "run" / "logs" / "log.txt.rank1").read_text().split()[2])
        os.kill(pid, signal.SIGKILL)
        before = time.monotonic()
        errors = process.communicate()[1]
    assert time.monotonic() - before < 60
    assert process.returncode == 1
    assert f"error: LaunchError: process 1 (pid {pid}) was killed by SIGKILL" in errors
