"""A step's loss terms: fetched from the device at once, checked, then handed out."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Mapping
from typing import Any

import torch
from torch import Tensor


class OnHost(float):
    """A number that is no longer on the device: ``item()``, which upstream calls on each term, costs nothing."""

    def item(self) -> float:
        """The number."""
        return float(self)


class CheckedLosses(dict[str, Tensor]):
    """Loss terms whose ``items()`` are numbers.

    Upstream's loop sums ``values()`` over processes in place, then reads ``items()`` once, term by term, each a wait
    for the device. Here the first ``items()`` fetches all terms in one copy and shows them to ``check``, which may
    raise. The sums are the same on all processes, so all of them raise or none.

    Args:
        losses: name → scalar on the device; detached, so that the graph is freed.
        check: called once, with name → number.
    """

    def __init__(self, losses: Mapping[str, Tensor], check: Callable[[dict[str, float]], None]) -> None:
        super().__init__({name: value.detach() for name, value in losses.items()})
        self._check = check
        self._fetched: dict[str, Any] | None = None

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Name → number, as upstream's loop reads them."""
        if self._fetched is None:
            numbers = fetch(self)
            self._check(numbers)
            self._fetched = {name: OnHost(number) for name, number in numbers.items()}
        return self._fetched.items()


def fetch(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers, with one copy from the device; float64 holds every narrower dtype exactly."""
    if not losses:
        return {}
    numbers = torch.stack([value.detach().double() for value in losses.values()]).tolist()
    return dict(zip(losses, numbers, strict=True))
