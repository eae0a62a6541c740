"""``--to timm``: a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads.

timm's own DINOv2 models are the starting point; ``model_args`` says where this one differs. With registers those
models have no position for the class token: it is added to the token, which is the same sum.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2_noise.export.extras import require
from dinov2_noise.export.formats import Exported, Format, Forward
from dinov2_noise.export.preprocessing import MEAN, STD, Preprocessing
from dinov2_noise.export.tensors import require_safetensors, save_tensors
from dinov2_noise.files import write_json
from dinov2_noise.upstream.portable import Portable

LOADING = """\
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()  # the folder of this file; "hf-hub:NAME" on a hub
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = transform(Image.open("image.png").convert("RGB")).unsqueeze(0)
with torch.no_grad():
    tokens = model.forward_features(image)
cls, patches = tokens[:, 0], tokens[:, model.num_prefix_tokens :]
"""


def _require() -> None:
    require_safetensors()
    require("timm", "timm", "exporting to timm")


def state_dict(model: Portable) -> dict[str, Tensor]:
    """The backbone's entries under timm's names; biases it lacks are zeros. timm has no mask token."""
    state = {name: value for name, value in model.state.items() if name != "mask_token"}
    width = model.architecture.width
    last, rows = ("fc2", model.hidden) if model.architecture.feed_forward == "mlp" else ("w3", 2 * model.hidden)
    first = "fc1" if last == "fc2" else "w12"
    for block in range(model.architecture.depth):
        for layer, size in (("attn.proj", width), (f"mlp.{first}", rows), (f"mlp.{last}", width)):
            state.setdefault(f"blocks.{block}.{layer}.bias", torch.zeros(size))
    if model.architecture.registers:
        positions = state["pos_embed"]
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]
    return {name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): v for name, v in state.items()}


def model_config(model: Portable, preprocessing: Preprocessing) -> dict[str, Any]:
    """``config.json``: timm's name of the architecture, what differs from it, and the preprocessing."""
    found, size = model.architecture, preprocessing.size_px
    kind = "giant" if found.feed_forward == "swiglu" else "small"  # the former for its feed-forward layer
    arguments = {
        "img_size": size,
        "patch_size": found.patch_size_px,
        "embed_dim": found.width,
        "depth": found.depth,
        "num_heads": model.heads,
        "mlp_ratio": _ratio(model),
        "qkv_bias": model.has("attn.qkv.bias"),
        "init_values": 1e-5 if found.layer_scale else None,
        **({"reg_tokens": found.registers} if found.registers else {}),
    }
    shown = {
        "input_size": [found.channels, size, size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": _crop_share(preprocessing),
        "crop_mode": "center",
        "mean": list(MEAN),
        "std": list(STD),
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    registers = "_reg4" if found.registers else ""
    return {
        "architecture": f"vit_{kind}_patch14{registers}_dinov2",
        "num_classes": 0,
        "num_features": found.width,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": shown,
    }


def _crop_share(preprocessing: Preprocessing) -> float:
    """From which timm finds the side before the crop, ``floor(size / share)``."""
    size, before = preprocessing.size_px, preprocessing.resize_px
    return size / before if math.floor(size / (size / before)) == before else size / (before + 0.5)


def _ratio(model: Portable) -> float:
    """From which timm finds the rows of the first feed-forward layer, ``int(width * ratio)``."""
    rows = model.hidden if model.architecture.feed_forward == "mlp" else 2 * model.hidden
    return math.ceil(rows / model.architecture.width * 1e5) / 1e5


def _write(model: Exported, folder: Path) -> None:
    save_tensors(state_dict(model.portable), folder)
    write_json(folder / "config.json", model_config(model.portable, model.preprocessing))


def _read(folder: Path) -> Forward:
    model = require("timm", "timm", "exporting to timm").create_model(f"local-dir:{folder}", pretrained=True).eval()

    @torch.no_grad()
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = model.forward_features(images)
        return tokens[:, 0], tokens[:, model.num_prefix_tokens :]

    return forward


TIMM = Format("timm", "timm", _require, _write, _read, LOADING, {"proj_bias": True, "ffn_bias": True})
