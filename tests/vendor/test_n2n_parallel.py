"""Two processes train as one does: the same crops and pairs, the same losses, the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_python

from neighbor2neighbor import Trainer, TrainingConfig
from neighbor2neighbor.crops import CropStream

SCRIPT = Path(__file__).with_name("n2n_ranks.py")
BATCH, BROKEN = 4, 5  # of the script


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    done = run_python(str(SCRIPT), str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    return path


def load(folder: Path, case: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What one process left, and each of the two."""
    one, first, second = (torch.load(folder / f"{case}-{name}.pth", weights_only=True) for name in ("one", "0", "1"))
    return one, first, second


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("case", ["plain", "strided"])
def test_two_processes_train_as_one(folder: Path, case: str) -> None:
    one, first, second = load(folder, case)
    assert first["records"] == second["records"]
    assert len(one["records"]) == len(first["records"]) >= 2
    for found, expected in zip(first["records"], one["records"], strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    for part in ("model", "ema") if case == "strided" else ("model",):
        assert_equal(first["state"][part], one["state"][part], 2e-6)
        assert_equal(second["state"][part], first["state"][part], 0)


def test_two_processes_continue_what_one_began(folder: Path) -> None:
    one, first, _ = load(folder, "resumed")
    assert [record[0] for record in first["records"]] == [2, 3]
    for found, expected in zip(first["records"], one["records"][1:], strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    assert_equal(first["state"]["model"], one["state"]["model"], 2e-6)


def test_fp16_leaves_out_the_same_steps_in_both_processes(folder: Path) -> None:
    _, first, second = load(folder, "fp16")
    assert first["state"]["scaler"] == second["state"]["scaler"]
    assert first["state"]["scaler"]["scale"] < 65536, "gradients of at least one step overflowed"
    assert first["records"] == second["records"]
    assert_equal(second["state"]["model"], first["state"]["model"], 0)


def test_one_process_whose_loss_is_not_finite_stops_all(folder: Path) -> None:
    shares = [CropStream(7, 0, 0, BATCH, share=BATCH // 2, rank=rank, world_size=2) for rank in (0, 1)]
    assert sum(BROKEN in [draw.image_index for draw in share] for share in shares) == 1, "one process alone draws it"
    for left in load(folder, "broken"):
        assert left["error"].startswith("the loss is nan at step 1 of 3")
        assert left["records"] == []
        assert left["state"]["step"] == 0
        assert all(value.isfinite().all() for value in left["state"]["model"].values())


def test_processes_share_each_batch_of_the_stream() -> None:
    whole = list(CropStream(7, seed=3, first=6, last=24))
    shares = [list(CropStream(7, 3, 6, 24, share=2, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(CropStream(7, 3, 6, 24, share=2, rank=rank, world_size=3)) for rank in range(3)] == [6, 6, 6]
    for step in range(3):
        joined = [draw for share in shares for draw in share[2 * step : 2 * step + 2]]
        assert joined == whole[6 * step : 6 * step + 6]


def test_processes_that_do_not_fit_are_refused() -> None:
    images = [torch.zeros(3, 64, 64)]
    with pytest.raises(ValueError, match="batch of 4 images cannot be shared out evenly among 3 processes: choose"):
        Trainer(images, TrainingConfig(), rank=0, world_size=3)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Trainer(images, TrainingConfig(), rank=2, world_size=2)
    with pytest.raises(ValueError, match="needs a process group"):
        Trainer(images, TrainingConfig(), rank=0, world_size=2)
