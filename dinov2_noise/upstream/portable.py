"""The backbone without what binds it to upstream's training: plain attention, one size, an entry per layer."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dinov2_noise import xformers_ops
from dinov2_noise.errors import CheckpointError, ConfigError
from dinov2_noise.weights import Architecture
from dinov2_noise.weights.names import unchunked

_ATTENTION = "dinov2.layers.attention"
STUDENT_KEYS = ("arch", "patch_size", "layerscale", "ffn_layer", "qkv_bias", "proj_bias", "ffn_bias")
"""Keys of ``student`` that decide the backbone's function."""
_CHECKOUT_KEYS = ("num_register_tokens", "interpolate_antialias", "interpolate_offset")  # not in the PyPI wheel


@dataclass(frozen=True)
class Portable:
    """A backbone for images of one size, as other libraries need to know it.

    Attributes:
        state: entries under upstream's names, without block chunks; the position grid is that of ``size_px``.
        heads: attention heads. hidden: rows of the feed-forward layer's first half. size_px: side of the images.
        architecture: the rest.
    """

    state: dict[str, Tensor]
    architecture: Architecture
    heads: int
    hidden: int
    size_px: int

    def has(self, name: str) -> bool:
        """Whether block 0 has the entry ``name``, such as ``attn.qkv.bias``."""
        return f"blocks.0.{name}" in self.state


def portable(backbone: nn.Module, size_px: int) -> Portable:
    """The backbone at images of ``size_px``; where its grid is another, upstream's own interpolation is written out.

    Raises:
        ConfigError: the side is no multiple of the patch size.
        CheckpointError: the feed-forward layers are of a kind that other libraries do not have.
    """
    model: Any = backbone
    state = {unchunked(name): value.detach().cpu() for name, value in backbone.state_dict().items()}
    state["pos_embed"] = positions_for(backbone, size_px).cpu()
    found = Architecture.of(state)
    if found.feed_forward == "none":
        raise CheckpointError("a backbone with student.ffn_layer=identity has no counterpart in other libraries")
    first = state["blocks.0.mlp.fc1.weight" if found.feed_forward == "mlp" else "blocks.0.mlp.w12.weight"]
    hidden = first.shape[0] if found.feed_forward == "mlp" else first.shape[0] // 2
    return Portable(state, found, int(model.num_heads), hidden, size_px)


def require_size(backbone: nn.Module, size_px: int) -> None:
    """Check that images of ``size_px`` can be cut into patches.

    Raises:
        ConfigError: the side is no multiple of the patch size.
    """
    patch = int(backbone.patch_size)  # type: ignore[arg-type]
    if size_px < patch or size_px % patch:
        lower = max(1, size_px // patch) * patch
        raise ConfigError(
            f"size {size_px}: images must be a multiple of the patch size, {patch} px, such as {lower} or "
            f"{lower + patch}"
        )


@torch.no_grad()
def positions_for(backbone: nn.Module, size_px: int) -> Tensor:
    """(1, 1 + N, D): what upstream adds to the tokens of an image of ``size_px``.

    Raises:
        ConfigError: see `portable`.
    """
    require_size(backbone, size_px)
    model: Any = backbone
    patch = int(model.patch_size)
    tokens = torch.zeros(1, 1 + (size_px // patch) ** 2, model.embed_dim, device=model.pos_embed.device)
    found: Tensor = model.interpolate_pos_encoding(tokens, size_px, size_px)
    return found.detach().clone()


class TwoOutputs(nn.Module):
    """Normalised images (B, 3, S, S) → class token (B, D) and patch tokens (B, N, D), both after the final norm."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.backbone(images, is_training=True)
        return found["x_norm_clstoken"], found["x_norm_patchtokens"]


def at_size(backbone: nn.Module, size_px: int) -> TwoOutputs:
    """A copy whose positions are those of ``size_px``, so that no interpolation is left in it."""
    positions = positions_for(backbone, size_px)
    model: Any = copy.deepcopy(backbone)
    model.pos_embed = nn.Parameter(positions, requires_grad=False)
    return TwoOutputs(model).eval()


@contextmanager
def plain_attention(device: torch.device) -> Iterator[None]:
    """Where xFormers is in use, which has no kernels for a CPU, take PyTorch's attention in the block."""
    module = cast(Any, sys.modules.get(_ATTENTION))
    if device.type != "cpu" or module is None:
        yield
        return
    names = ("memory_efficient_attention", "unbind")
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    try:
        for name in before:
            setattr(module, name, getattr(xformers_ops, name))
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def model_sections(config: Mapping[str, Any], size_px: int | None = None) -> dict[str, Any]:
    """The parts of a merged config that upstream builds the backbone from; ``size_px`` replaces the crops' size."""
    given = config["student"]
    student = {key: given[key] for key in STUDENT_KEYS} | {key: given[key] for key in _CHECKOUT_KEYS if key in given}
    size = config["crops"]["global_crops_size"] if size_px is None else size_px
    return {"student": {**student, "block_chunks": 0}, "crops": {"global_crops_size": size}}
