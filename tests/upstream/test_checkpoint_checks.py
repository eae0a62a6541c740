"""The checks before a checkpoint is loaded, as several ranks see them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream import checkpoint_checks, fsdp

WEIGHTS = {"a": torch.zeros(2), "b": torch.zeros(3)}


def _as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, verdict_of_rank_0: Any = None) -> None:
    def broadcast(box: list[Any], src: int) -> None:
        if rank != src:
            box[0] = verdict_of_rank_0

    monkeypatch.setattr(checkpoint_checks.dist, "get_rank", lambda: rank)
    monkeypatch.setattr(checkpoint_checks.dist, "broadcast_object_list", broadcast)


def test_rank_0_names_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_rank(monkeypatch, 0)
    checkpoint_checks.require_same_model(WEIGHTS, dict(WEIGHTS), "model_0000001.pth")
    with pytest.raises(CheckpointError) as caught:
        checkpoint_checks.require_same_model(
            WEIGHTS, {"a": torch.zeros(4), "c": torch.zeros(1)}, "OUT/model_0000001.pth"
        )
    message = str(caught.value)
    assert "checkpoint OUT/model_0000001.pth belongs to another" in message
    assert "3 entries differ" in message
    assert "c: missing in the checkpoint" in message
    assert "b: not in the model" in message
    assert "a: shape (2,), the model has (4,)" in message


def test_other_ranks_follow_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs the gathered model is empty on all ranks but the first: its verdict counts, whatever they see."""
    _as_rank(monkeypatch, 1, verdict_of_rank_0=[])
    checkpoint_checks.require_same_model(WEIGHTS, {}, "")
    _as_rank(monkeypatch, 1, verdict_of_rank_0=["a: shape"])
    with pytest.raises(CheckpointError, match="1 entries differ"):
        checkpoint_checks.require_same_model(WEIGHTS, {}, "")


@pytest.mark.parametrize(
    ("world_size", "now", "message"),
    [
        (2, 8, r"with 4 images per step, this run has 8 on 2 processes: set train\.batch_size_per_gpu=2;"),
        (3, 12, "3 processes cannot share 4 images equally, so start a number that divides 4"),
    ],
)
def test_another_number_of_images_per_step(
    monkeypatch: pytest.MonkeyPatch, world_size: int, now: int, message: str
) -> None:
    monkeypatch.setattr(checkpoint_checks.dist, "get_world_size", lambda: world_size)
    monkeypatch.setattr(checkpoint_checks, "global_batch", lambda: now)
    checkpoint_checks.require_same_batch(now, "model_0000001.pth")
    checkpoint_checks.require_same_batch(None, "of an earlier version")
    with pytest.raises(CheckpointError, match=message):
        checkpoint_checks.require_same_batch(4, "model_0000001.pth")


def test_numpy_scalars_of_the_schedules_become_plain_numbers() -> None:
    import numpy as np

    state = {"param_groups": [{"lr": np.float64(0.1), "betas": (0.9, 0.999)}], "state": {"w": torch.ones(1)}}
    plain = fsdp._plain(state)
    assert type(plain["param_groups"][0]["lr"]) is float
    assert plain["param_groups"][0] == {"lr": 0.1, "betas": (0.9, 0.999)}
    assert plain["state"]["w"] is state["state"]["w"]
