"""A line that says how a run stands: stage, losses, speed, what it waits for, time left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MAX_CHARACTERS = 160
LOADER_BOUND = 0.1
"""Share of the time spent waiting for images from which on the loader, not the device, limits the speed."""

_LONGEST_NAME = 20
_TERMS = {
    "dino_local_crops_loss": "local",
    "dino_global_crops_loss": "global",
    "koleo_loss": "koleo",
    "ibot_loss": "ibot",
}
_ANCHOR = ("anchor_dino_local_crops_loss", "anchor_dino_global_crops_loss", "anchor_ibot_loss")


@dataclass(frozen=True)
class Standing:
    """What the line says.

    Attributes:
        stage, stage_number, n_stages, view: the stage's name, place (from 1) and view.
        iteration, n_iterations, epoch_length_iterations: iterations done, from 1.
        losses: name → value, as upstream shows them, ``total_loss`` included.
        learning_rate: of the whole network, before multipliers per layer.
        images_per_s: over all processes; None until it is known.
        waited: share of the time spent waiting for images.
        left_s: seconds to the end of the run.
        memory_gib: most that torch has held on the GPU; None on a CPU.
    """

    stage: str
    stage_number: int
    n_stages: int
    view: str
    iteration: int
    n_iterations: int
    epoch_length_iterations: int
    losses: Mapping[str, float]
    learning_rate: float
    images_per_s: float | None
    waited: float | None
    left_s: float | None
    memory_gib: float | None


def line(standing: Standing) -> str:
    """At most 160 characters: in full, or shorter by what matters least."""
    texts = list(_ever_shorter(standing))
    fitting = [text for text in texts if len(text) <= MAX_CHARACTERS]
    return fitting[0] if fitting else texts[-1][:MAX_CHARACTERS]


class _Detail(NamedTuple):
    """How much a line says. ``digits``: of losses; ``terms``: each, or the total alone; else whether it is told."""

    digits: int = 2
    terms: bool = True
    anchor_terms: bool = True
    length: bool = True
    share: bool = True
    rate: bool = True


_EVER_LESS = (
    _Detail(),
    _Detail(anchor_terms=False),
    _Detail(anchor_terms=False, length=False),
    _Detail(anchor_terms=False, length=False, share=False),
    _Detail(1, anchor_terms=False, length=False, share=False),
    _Detail(1, terms=False, length=False, share=False, rate=False),
)


def _ever_shorter(standing: Standing) -> Iterator[str]:
    for detail in _EVER_LESS:
        rate = [f"lr {_short(standing.learning_rate)}"] if detail.rate else []
        parts = [_stage(standing), _place(standing, detail), _losses(standing.losses, detail), *rate]
        yield " | ".join([*parts, *_speed(standing, detail)])


def _short(value: float) -> str:
    """``3.1e-4``."""
    return re.sub(r"e([+-])0+(?=\d)", r"e\1", f"{value:.1e}").replace("e+", "e")


def _stage(standing: Standing) -> str:
    name = standing.stage
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    view = "" if standing.view == standing.stage else f", {standing.view} view"
    return f"{name} {standing.stage_number}/{standing.n_stages}{view}"


def _place(standing: Standing, detail: _Detail) -> str:
    length = standing.epoch_length_iterations
    epochs = f"{standing.iteration / length:.1f}/{standing.n_iterations / length:.0f}"
    return f"epoch {epochs} it {standing.iteration}" + (f"/{standing.n_iterations}" if detail.length else "")


def _losses(losses: Mapping[str, float], detail: _Detail) -> str:
    """``loss 8.12: local 3.11 …``; the three anchor terms, or their sum."""

    def shown(value: float) -> str:
        return f"{value:.{detail.digits}f}"

    total = f"loss {shown(losses.get('total_loss', float('nan')))}"
    if not detail.terms:
        return total
    terms = [f"{short} {shown(losses[name])}" for name, short in _TERMS.items() if name in losses]
    others = [name for name in losses if name.endswith("_loss") and name not in (*_TERMS, *_ANCHOR, "total_loss")]
    terms += [f"{name.removesuffix('_loss')} {shown(losses[name])}" for name in others]
    anchor = [losses[name] for name in _ANCHOR if name in losses]
    if anchor:
        terms.append("anchor " + "+".join(map(shown, anchor if detail.anchor_terms else [sum(anchor)])))
    return f"{total}: {' '.join(terms)}" if terms else total


def _speed(standing: Standing, detail: _Detail) -> Iterator[str]:
    rate = standing.images_per_s
    if rate is not None:
        yield f"{rate:.{0 if rate >= 10 else 1}f} img/s"
    if standing.waited is not None:
        yield f"{bound(standing.waited)}-bound" + (f", waits {standing.waited:.0%}" if detail.share else "")
    if standing.left_s is not None:
        yield f"{duration(standing.left_s)} left"
    if standing.memory_gib is not None:
        yield f"{standing.memory_gib:.1f} GiB"


def bound(waited: float) -> str:
    """``loader`` or ``compute``, from the share of the time spent waiting for images."""
    return "loader" if waited >= LOADER_BOUND else "compute"


def duration(seconds: float) -> str:
    """``3d04h``, ``27h04m`` (under two days), ``12m30s`` or ``8s``."""
    total = round(seconds)
    if total >= 48 * 3600:
        return f"{total // 86400}d{total % 86400 // 3600:02d}h"
    if total >= 3600:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 60}m{total % 60:02d}s" if total >= 60 else f"{total}s"
