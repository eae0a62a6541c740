"""The checks before a checkpoint is loaded, as several ranks see them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream import fsdp

WEIGHTS = {"a": torch.zeros(2), "b": torch.zeros(3)}


def _as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, verdict_of_rank_0: Any = None) -> None:
    def broadcast(box: list[Any], src: int) -> None:
        if rank != src:
            box[0] = verdict_of_rank_0

    monkeypatch.setattr(fsdp.dist, "get_rank", lambda: rank)
    monkeypatch.setattr(fsdp.dist, "broadcast_object_list", broadcast)


def test_rank_0_names_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_rank(monkeypatch, 0)
    fsdp._require_same_model(WEIGHTS, dict(WEIGHTS))
    with pytest.raises(CheckpointError) as caught:
        fsdp._require_same_model(WEIGHTS, {"a": torch.zeros(4), "c": torch.zeros(1)})
    message = str(caught.value)
    assert "3 entries differ" in message
    assert "c: missing in the checkpoint" in message
    assert "b: not in the model" in message
    assert "a: shape (2,), the model has (4,)" in message


def test_other_ranks_follow_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs the gathered model is empty on all ranks but the first: its verdict counts, whatever they see."""
    _as_rank(monkeypatch, 1, verdict_of_rank_0=[])
    fsdp._require_same_model(WEIGHTS, {})
    _as_rank(monkeypatch, 1, verdict_of_rank_0=["a: shape"])
    with pytest.raises(CheckpointError, match="1 entries differ"):
        fsdp._require_same_model(WEIGHTS, {})


def test_numpy_scalars_of_the_schedules_become_plain_numbers() -> None:
    import numpy as np

    state = {"param_groups": [{"lr": np.float64(0.1), "betas": (0.9, 0.999)}], "state": {"w": torch.ones(1)}}
    plain = fsdp._plain(state)
    assert type(plain["param_groups"][0]["lr"]) is float
    assert plain["param_groups"][0] == {"lr": 0.1, "betas": (0.9, 0.999)}
    assert plain["state"]["w"] is state["state"]["w"]
