"""``--to onnx``: one program for images of one size and batches of any, whose outputs are both kinds of tokens."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from dinov2_noise.export.extras import require
from dinov2_noise.export.formats import Exported, Format, Forward
from dinov2_noise.export.hugging_face import processor_config
from dinov2_noise.files import write_json
from dinov2_noise.upstream.portable import at_size, plain_attention

MODEL_NAME = "model.onnx"
INPUT, OUTPUTS = "images", ("cls", "patches")
_OPSET = 18
# A file of Protocol Buffers ends at 2 GiB; larger weights lie beside it.
_LARGEST_BYTES = 1_900_000_000

LOADING = """\
import numpy as np
import onnxruntime
from PIL import Image

image = Image.open("image.png").convert("RGB")
sides = [int({resize} * side / min(image.size)) for side in image.size]  # the shorter one is {resize} px
image = image.resize(sides, Image.Resampling.BICUBIC)
left, top = [round((side - {size}) / 2) for side in sides]  # the centre of {size} px
pixels = np.asarray(image.crop((left, top, left + {size}, top + {size})), np.float32) / 255
pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
session = onnxruntime.InferenceSession("model.onnx")  # beside this file
cls, patches = session.run(["cls", "patches"], {{"images": pixels.transpose(2, 0, 1)[None]}})
"""


def _require() -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "onnx", "exporting to onnx")


def _write(model: Exported, folder: Path) -> None:
    network, size = at_size(model.backbone, model.portable.size_px), model.portable.size_px
    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2, model.portable.architecture.channels, size, size)
    n_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    with plain_attention(torch.device("cpu")), _quiet():
        torch.onnx.export(
            network,
            (example,),
            folder / MODEL_NAME,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=_OPSET,
            external_data=n_bytes > _LARGEST_BYTES,
        )
    write_json(folder / "preprocessor_config.json", processor_config(model.preprocessing))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own changes, of no concern to a user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _read(folder: Path) -> Forward:
    runtime = require("onnxruntime", "onnx", "exporting to onnx")
    session = runtime.InferenceSession(str(folder / MODEL_NAME), providers=["CPUExecutionProvider"])

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        cls, patches = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return torch.from_numpy(cls), torch.from_numpy(patches)

    return forward


ONNX = Format("ONNX", "onnx", _require, _write, _read, LOADING)
