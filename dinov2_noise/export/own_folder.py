"""``--to safetensors``: upstream's own names and position grid; what ``manifest.json`` holds rebuilds the network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dinov2_noise.export.features import features_from
from dinov2_noise.export.formats import Exported, Format, Forward
from dinov2_noise.export.opened import open_model
from dinov2_noise.export.tensors import require_safetensors, save_tensors
from dinov2_noise.weights.names import unchunked

LOADING = """\
from PIL import Image

import dinov2_noise

features = dinov2_noise.load(".")  # the folder of this file
cls, patches = features(Image.open("image.png"))
"""


def _write(model: Exported, folder: Path) -> None:
    save_tensors({unchunked(name): value for name, value in model.backbone.state_dict().items()}, folder)


def _read(folder: Path) -> Forward:
    features = features_from(open_model(folder), torch.device("cpu"))

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        return features(images)

    return forward


SAFETENSORS = Format("DINOv2, as safetensors", "dinov2", require_safetensors, _write, _read, LOADING)
