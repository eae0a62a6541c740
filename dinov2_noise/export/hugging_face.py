"""``--to hf``: the folder of a ``Dinov2Model``, with registers of a ``Dinov2WithRegistersModel``.

Names are those of the files that Meta published for transformers 4; transformers 5 renames them when it reads them.
That class always has layer scale and biases everywhere but in query, key and value: where the backbone has none, ones
and zeros stand there, which change no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
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
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

folder = "."  # the folder of this file, or its name on a hub
processor = AutoImageProcessor.from_pretrained(folder)
model = AutoModel.from_pretrained(folder).eval()
inputs = processor(Image.open("image.png").convert("RGB"), return_tensors="pt")
with torch.no_grad():
    tokens = model(**inputs).last_hidden_state
cls = tokens[:, 0]
patches = tokens[:, 1 + getattr(model.config, "num_register_tokens", 0) :]
"""
_NAMES = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "register_tokens": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_IN_BLOCKS = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.w12": "mlp.weights_in",
    "mlp.w3": "mlp.weights_out",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def _require() -> None:
    require_safetensors()
    require("transformers", "hf", "exporting to hf")


def state_dict(model: Portable) -> dict[str, Tensor]:
    """The backbone's entries under the names of the published files."""
    found: dict[str, Tensor] = {}
    for name, value in _complete(model).items():
        in_block = _BLOCK.fullmatch(name)
        if in_block is None:
            found[_NAMES[name]] = value
            continue
        layer, inner = f"encoder.layer.{in_block[1]}", in_block[2]
        if inner.startswith("attn.qkv."):
            kind = inner.rpartition(".")[2]
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"{layer}.attention.attention.{part}.{kind}"] = rows
            continue
        for ours, theirs in _IN_BLOCKS.items():
            inner = inner.replace(ours, theirs)
        found[f"{layer}.{inner}"] = value
    return found


def _complete(model: Portable) -> dict[str, Tensor]:
    """The entries with those that the class has and this backbone has not."""
    width, state = model.architecture.width, dict(model.state)
    in_mlp = {"mlp.fc1": model.hidden, "mlp.fc2": width}
    if model.architecture.feed_forward == "swiglu":
        in_mlp = {"mlp.w12": 2 * model.hidden, "mlp.w3": width}
    for block in range(model.architecture.depth):
        for layer, rows in {"attn.proj": width, **in_mlp}.items():
            state.setdefault(f"blocks.{block}.{layer}.bias", torch.zeros(rows))
        for scale in ("ls1", "ls2"):
            state.setdefault(f"blocks.{block}.{scale}.gamma", torch.ones(width))
    return state


def model_config(model: Portable) -> dict[str, Any]:
    """``config.json``.

    ``mlp_ratio`` is a whole number there: the feed-forward layers of DINOv2's architectures are all four times as wide
    as their tokens, of which SwiGLU keeps two thirds, rounded up to a multiple of 8.
    """
    found = model.architecture
    registers = {"num_register_tokens": found.registers} if found.registers else {}
    return {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": found.width,
        "num_hidden_layers": found.depth,
        "num_attention_heads": model.heads,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": model.size_px,
        "patch_size": found.patch_size_px,
        "num_channels": found.channels,
        "qkv_bias": model.has("attn.qkv.bias"),
        "layerscale_value": 1.0,
        "use_swiglu_ffn": found.feed_forward == "swiglu",
        "torch_dtype": "float32",
        **registers,
    }


def processor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """``preprocessor_config.json``; of images of 8 bits."""
    size = preprocessing.size_px
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.resize_px},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def _write(model: Exported, folder: Path) -> None:
    save_tensors(state_dict(model.portable), folder)
    write_json(folder / "config.json", model_config(model.portable))
    write_json(folder / "preprocessor_config.json", processor_config(model.preprocessing))


def _read(folder: Path) -> Forward:
    transformers = require("transformers", "hf", "exporting to hf")
    with _quiet():
        model = transformers.AutoModel.from_pretrained(str(folder)).eval()
    first_patch = 1 + getattr(model.config, "num_register_tokens", 0)

    @torch.no_grad()
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = model(pixel_values=images).last_hidden_state
        return tokens[:, 0], tokens[:, first_patch:]

    return forward


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar that transformers draws over our own."""
    logging = require("transformers.utils.logging", "hf", "exporting to hf")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


_COMPLETES = {"proj_bias": True, "ffn_bias": True, "layerscale": 1.0}
HUGGING_FACE = Format("Hugging Face transformers", "transformers", _require, _write, _read, LOADING, _COMPLETES)
