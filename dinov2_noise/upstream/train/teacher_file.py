"""A frozen teacher from a file: released weights, a teacher checkpoint, a full checkpoint, or upstream's rank files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from dinov2_noise import weights
from dinov2_noise.errors import CheckpointError
from dinov2_noise.upstream.rank_files import is_rank_file, read_rank_teacher

logger = logging.getLogger("dinov2")

StateDict = dict[str, Tensor]


class TeacherFile(NamedTuple):
    """What a file gives: the state dict of each network asked for, and the loss centers it holds.

    ``centers``: (1, K) under ``dino_loss`` and (1, 1, K) under ``ibot_patch_loss``; empty for files without them.
    """

    networks: dict[str, StateDict]
    centers: StateDict


def read_teacher(path: str, networks: Mapping[str, nn.Module], architecture: Any) -> TeacherFile:
    """Read and check ``path`` for ``networks`` (``backbone``, and heads where they are wanted), before FSDP wraps them.

    The networks are used as scratch space: their weights are those of the file afterwards.

    Raises:
        CheckpointError: missing or unreadable file, another architecture, or heads that are wanted and not there.
    """
    found = _read(path, architecture)
    # What a student would learn a frozen teacher never does: nothing may be missing.
    report = weights.load_backbone(networks["backbone"], found, required_percent=100)
    _require_finite(found)
    logger.info("dinov2-noise: frozen teacher from %s\n%s", path, report.table())
    states = {"backbone": _copied(networks["backbone"])}
    for name in networks:
        if name != "backbone":
            states[name] = _head(name, networks[name], found)
    names = {"dino_loss.center": "dino_loss", "ibot_patch_loss.center": "ibot_patch_loss"}
    return TeacherFile(states, {names[key]: value for key, value in found.rest.items() if key in names})


def _read(path: str, architecture: Any) -> weights.Weights:
    return read_rank_teacher(path, architecture) if is_rank_file(path) else weights.read(path)


def _require_finite(found: weights.Weights) -> None:
    for name, value in found.backbone.items():
        if not value.isfinite().all():
            raise CheckpointError(
                f"{found.source!r} holds values that are not finite, in {name}: its training had diverged; take an "
                "earlier checkpoint"
            )


def _copied(network: nn.Module) -> StateDict:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _head(name: str, head: nn.Module, found: weights.Weights) -> StateDict:
    expected = head.state_dict()
    state = {key.removeprefix(f"{name}."): value for key, value in found.rest.items() if key.startswith(f"{name}.")}
    differing = [
        key for key, value in expected.items() if key not in state or tuple(state[key].shape) != tuple(value.shape)
    ]
    if differing:
        raise CheckpointError(
            f"anchor.heads is frozen, but {found.source!r} holds no fitting {name} ({len(differing)} of "
            f"{len(expected)} entries, such as {differing[0]}): take a teacher_checkpoint.pth or a full checkpoint of "
            "the same dino.* and ibot.* settings, or set anchor.heads to ema, which needs no heads in the file"
        )
    return {key: state[key].detach().clone() for key in expected}
