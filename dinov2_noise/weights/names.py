"""State-dict names of other layouts → upstream's, without wrappers and block chunks.

Upstream's own: ``blocks.3.attn.qkv.weight``; with ``block_chunks`` it writes ``blocks.<chunk>.3.…``, the block's number
being that of the whole network. Others: Hugging Face ``Dinov2Model`` and ``Dinov2WithRegistersModel`` (transformers 4
and 5), timm's ``VisionTransformer``. Facts read in those libraries; the conversion is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"}
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")
_OURS = ("cls_token", "pos_embed", "mask_token", "register_tokens", "reg_token", "patch_embed.", "blocks.", "norm")
_HUGGING_FACE = ("embeddings.", "encoder.", "layer.", "layernorm.")
_RENAMED = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^(?:encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
        (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
        (r"\.mlp\.weights_in\.", ".mlp.w12."),
        (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.w3."),
        (r"^reg_token$", "register_tokens"),
    )
]
# Layers that others keep apart and upstream as one, in the order of its rows.
_JOINED = (
    (("query", "key", "value"), "qkv"),
    (("q_proj", "k_proj", "v_proj"), "qkv"),
    (("gate_proj", "up_proj"), "w12"),
    (("fc1_g", "fc1_x"), "w12"),
    (("w1", "w2"), "w12"),
)
# The end of a name that every backbone has, per layout; what stands before it is the backbone's prefix.
ANCHORS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")


def without_wrappers(name: str) -> str:
    """``module.``, ``_orig_mod.`` and FSDP's and checkpointing's parts of a name taken out, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def unchunked(name: str) -> str:
    """``blocks.0.3.attn…`` → ``blocks.3.attn…``; other names as they are."""
    return _CHUNKED.sub(r"blocks.\1.", name)


def layout(names: Mapping[str, Tensor]) -> str:
    """Which library wrote a backbone of these names (without prefix); timm's has no mask token."""
    if ANCHORS[1] in names:
        return "Hugging Face"
    return "upstream backbone" if "mask_token" in names else "timm"


def of_the_backbone(name: str) -> bool:
    """Whether an entry of a file without prefixes belongs to the backbone, as against heads and classifiers."""
    return name.startswith((*_OURS, *_HUGGING_FACE))


def to_upstream(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's entries, without prefix, under upstream's names; what has no counterpart keeps its name."""
    named: dict[str, Tensor] = {}
    for name, tensor in entries.items():
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        named[unchunked(name)] = tensor
    for parts, whole in _JOINED:
        _join(named, parts, whole)
    _name_gated_layers(named)
    if "mask_token" not in named:
        _complete_positions(named)
    return named


def _join(named: dict[str, Tensor], parts: tuple[str, ...], whole: str) -> None:
    """Concatenate the rows of layers that upstream keeps as one; in place."""
    for first in [name for name in named if name.split(".")[-2:-1] == [parts[0]]]:
        stem, _, kind = first.rsplit(".", 2)
        names = [f"{stem}.{part}.{kind}" for part in parts]
        if all(name in named for name in names):
            named[f"{stem}.{whole}.{kind}"] = torch.cat([named.pop(name) for name in names])


def _name_gated_layers(named: dict[str, Tensor]) -> None:
    """timm calls a SwiGLU's layers ``fc1`` and ``fc2``, as it calls an MLP's; twice as many rows tell them apart.

    Its ``SwiGLU`` keeps the two halves of the first layer apart (joined above); its second layer is ``fc2`` there too.
    """
    for name in [name for name in named if name.endswith(".mlp.fc2.weight")]:
        stem = name.removesuffix("fc2.weight")
        first = named.get(f"{stem}fc1.weight")
        packed = first is not None and first.shape[0] == 2 * named[name].shape[1]
        if packed or f"{stem}w12.weight" in named:
            for theirs, ours in (("fc1", "w12"), ("fc2", "w3")):
                for kind in ("weight", "bias"):
                    if f"{stem}{theirs}.{kind}" in named:
                        named[f"{stem}{ours}.{kind}"] = named.pop(f"{stem}{theirs}.{kind}")


def _complete_positions(named: dict[str, Tensor]) -> None:
    """timm's ``no_embed_class`` grids lack the CLS token's position: it is 0; others hold positions of registers,
    which upstream has inside the registers.

    Sums stay what they are: timm adds the CLS position to ``cls_token`` when it converts upstream's weights.
    """
    positions = named.get("pos_embed")
    if positions is None or positions.dim() != 3:
        return
    registers = named.get("register_tokens")
    n_registers = 0 if registers is None else registers.shape[1]
    if _is_square(positions.shape[1]):
        named["pos_embed"] = torch.cat((torch.zeros_like(positions[:, :1]), positions), dim=1)
    elif registers is not None and not _is_square(positions.shape[1] - 1):
        named["register_tokens"] = registers + positions[:, 1 : 1 + n_registers]
        named["pos_embed"] = torch.cat((positions[:, :1], positions[:, 1 + n_registers :]), dim=1)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
