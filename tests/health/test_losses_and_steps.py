"""Loss terms that check themselves, counted steps, and messages."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dinov2_noise.health import CheckedLosses, Evidence, SkippedSteps, diverged_message, skipped_message
from dinov2_noise.health.causes import likely_causes, not_finite

EVIDENCE = Evidence(
    iteration=5000,
    stage="noisy",
    losses={"dino_global_crops_loss": 2.0, "koleo_loss": 0.1, "ibot_loss": math.nan},
    own_losses={"dino_global_crops_loss": 2.0, "koleo_loss": 0.1, "ibot_loss": math.nan},
    precision="bf16",
    scale=None,
    learning_rate=0.001,
    warmup_iterations=1000,
    clip_grad=3.0,
    global_batch=512,
    crops_not_finite=0,
    duplicate_share=0.0,
    distinct_cls=1.0,
)


class Waits(TorchDispatchMode):
    """Counts reads of single tensor elements."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket is torch.ops.aten._local_scalar_dense
        return func(*args, **(kwargs or {}))


def test_values_are_the_terms_and_items_their_numbers() -> None:
    seen: list[dict[str, float]] = []
    terms = {"a": torch.tensor(1.5, requires_grad=True) * 2, "b": torch.tensor(0.25, dtype=torch.float16)}
    losses = CheckedLosses(terms, seen.append)
    for value in losses.values():  # as upstream sums over two processes
        value.mul_(2)
    with Waits() as waits:
        reduced = {name: value.item() / 2 for name, value in losses.items()}
    assert waits.count == 0
    assert reduced == {"a": 3.0, "b": 0.25}
    assert seen == [{"a": 6.0, "b": 0.5}]
    assert dict(losses.items()) == {"a": 6.0, "b": 0.5}
    assert len(seen) == 1, "checked once"
    assert not losses["a"].requires_grad


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_infinity_counts_as_nan(value: float) -> None:
    losses = CheckedLosses({"good": torch.tensor(1.0), "bad": torch.tensor(value)}, _refuse)
    with pytest.raises(ArithmeticError, match=r"\['bad'\]"):
        losses.items()


def _refuse(losses: dict[str, float]) -> None:
    if bad := not_finite(losses):
        raise ArithmeticError(bad)


def _step(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, weight: Tensor, gradient: float) -> None:
    optimizer.zero_grad()
    scaler.scale((weight * gradient).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


def test_steps_that_the_scaler_leaves_out() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    skipped, in_a_row = SkippedSteps(), []
    for gradient in (1.0, math.inf, math.nan, 1.0, math.inf):
        skipped.begin(optimizer)
        _step(scaler, optimizer, weight, gradient)
        in_a_row.append(skipped.end())
    assert in_a_row == [0, 1, 2, 0, 1]
    assert skipped.total == 3
    assert scaler.get_scale() == 0.5
    assert optimizer.state[weight]["step"] == 2


def test_before_an_optimizer_is_known_nothing_counts() -> None:
    assert SkippedSteps().end() == 0


@pytest.mark.parametrize(
    ("seen", "first"),
    [
        ({"crops_not_finite": 2}, "2 crops of the batch hold pixels that are not finite"),
        ({"own_losses": {"ibot_loss": 1.0}}, "the batch of another process is at fault"),
        ({"learning_rate": 1.0}, "the learning rate is 1; DINOv2's published peak for 512 images per step is 0.0028"),
        ({"precision": "fp16"}, "65504"),
        ({"iteration": 10}, "iteration 10 lies within the learning rate's warm-up of 1000"),
        ({"clip_grad": 0.0}, "gradients are not clipped"),
        ({"duplicate_share": 0.25}, "25% of the batch's images are there more than once"),
        ({"distinct_cls": 0.2}, "only 20% of the images had a CLS token of their own"),
        ({"global_batch": 8, "learning_rate": 1e-4}, "8 images per step are few"),
        ({"losses": {"ibot_loss": math.nan}}, "all terms fail together"),
        ({}, "nothing unusual"),
    ],
)
def test_the_most_telling_cause_comes_first(seen: dict[str, Any], first: str) -> None:
    assert first in likely_causes(replace(EVIDENCE, **seen))[0]


def test_the_message_names_terms_place_and_file() -> None:
    text = diverged_message(replace(EVIDENCE, precision="fp16", scale=128.0), "This process's batch: /x.pt")
    first, second = text.splitlines()[:2]
    assert first == "the loss is not finite at iteration 5000 (stage 'noisy'): ibot_loss=nan"
    assert second == "Seen: fp16, learning rate 0.001, 512 images per step, gradient scale 128."
    assert "This process's batch: /x.pt" in text
    assert "  1. an activation went past 65504" in text


def test_the_message_for_skipped_steps() -> None:
    text = skipped_message(20, 23, iteration=99, stage="noisy", precision="fp16", scale=0.0625)
    assert "left out 20 optimizer steps in a row, the last at iteration 99 (stage 'noisy'), 23 in all" in text
    assert "come down to 0.0625" in text
    assert "1. gradients overflow fp16" in text
    assert "bf16 needs no gradient scaler" in skipped_message(
        20, 20, iteration=19, stage="noisy", precision="bf16", scale=1.0
    )
