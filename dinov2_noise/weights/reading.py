"""Find the network in a weights file and give its entries upstream's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2_noise.errors import CheckpointError
from dinov2_noise.weights.files import open_weights
from dinov2_noise.weights.names import ANCHORS, layout, of_the_backbone, to_upstream, without_wrappers

_CONTAINERS = ("model", "state_dict", "model_state_dict")
_NETWORKS = ("teacher", "student")


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        source: the path, for messages.
        kind: ``upstream backbone``, ``teacher checkpoint``, ``training checkpoint (teacher)``, ``Hugging Face``,
            ``timm``.
        backbone: entries under upstream's names without block chunks (``blocks.3.attn.qkv.weight``).
        rest: all else under its own names: ``dino_head.…`` and ``ibot_head.…`` of the chosen network,
            ``dino_loss.center``, ``ibot_patch_loss.center``, classifiers; other networks of the file with their
            prefix (``student.backbone.…``).
    """

    source: str
    kind: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]


def read(path: str | Path, *, network: str = "teacher") -> Weights:
    """Read weights of any layout described in docs/weights.md.

    Args:
        path: a file, or a folder that holds one (Hugging Face, timm, or the output folder of a run).
        network: ``teacher`` or ``student``, where the file holds both.

    Raises:
        CheckpointError: the file is missing, incomplete, holds Python objects, or no vision transformer of DINOv2's
            form; or not the network asked for.
    """
    source = str(path)
    container, content = _state_dict(open_weights(Path(path)), network, source)
    entries = {without_wrappers(name): value for name, value in content.items() if isinstance(value, Tensor)}
    prefix = _backbone_prefix(entries, network, source)
    parent = prefix.removesuffix("backbone.")
    inner, rest = {}, {}
    for name, tensor in entries.items():
        short = name.removeprefix(prefix)
        if name.startswith(prefix) and of_the_backbone(short):
            inner[short] = tensor
        else:
            rest[name.removeprefix(parent) if parent != prefix else name] = tensor
    if prefix.startswith(f"{network}."):
        kind = f"training checkpoint ({network})"
    else:
        kind = f"{network} checkpoint" if container == network else layout(inner)
    return Weights(source, kind, to_upstream(inner), rest)


def _state_dict(content: Mapping[str, Any], network: str, source: str) -> tuple[str | None, Mapping[str, Any]]:
    """The innermost mapping, and the key it was found under."""
    container = None
    while True:
        inner = [key for key in (network, *_CONTAINERS) if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        container, content = inner[0], content[inner[0]]
    others = [key for key in _NETWORKS if isinstance(content.get(key), Mapping)]
    if others:
        raise CheckpointError(f"weights {source!r} hold no {network}, only {' and '.join(others)}")
    return container, content


def _backbone_prefix(entries: Mapping[str, Tensor], network: str, source: str) -> str:
    prefixes = sorted(
        {name.removesuffix(end) for name in entries for end in ANCHORS if name == end or name.endswith(f".{end}")}
    )
    if not prefixes:
        raise CheckpointError(
            f"weights {source!r} hold no backbone of DINOv2's form (no entry ends in {' or '.join(ANCHORS)}): "
            f"{_first_names(entries)}"
        )
    chosen = [prefix for prefix in prefixes if prefix.startswith(f"{network}.")]
    if len(chosen) == 1:
        return chosen[0]
    if len(prefixes) == 1 and not prefixes[0].startswith(tuple(f"{name}." for name in _NETWORKS)):
        return prefixes[0]
    raise CheckpointError(f"weights {source!r} hold no single {network}: their backbones are {', '.join(prefixes)}")


def _first_names(entries: Mapping[str, Tensor]) -> str:
    if not entries:
        return "it has no tensors at all"
    more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
    return f"it has {', '.join(list(entries)[:3])}{more}"
