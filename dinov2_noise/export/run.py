"""Write a run's backbone for another library, once what was written has been read back and computes the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.decoding import DTYPE_RANGE, load_pixels
from dinov2_noise.errors import ConfigError, DinoNoiseError, WriteError
from dinov2_noise.evaluation.identity import file_hash
from dinov2_noise.evaluation.records import Record, versions
from dinov2_noise.evaluation.runs import open_run
from dinov2_noise.export import facts
from dinov2_noise.export.card import Card
from dinov2_noise.export.features import features_from
from dinov2_noise.export.formats import Exported, Format
from dinov2_noise.export.hugging_face import HUGGING_FACE
from dinov2_noise.export.onnx_file import ONNX
from dinov2_noise.export.opened import COMMAND, Opened, open_model
from dinov2_noise.export.own_folder import SAFETENSORS
from dinov2_noise.export.parity import Parity, compare, random_images
from dinov2_noise.export.preprocessing import CROP_PX, Preprocessing
from dinov2_noise.export.timm_folder import TIMM
from dinov2_noise.files import OutputFolder, read_manifest
from dinov2_noise.upstream.portable import model_sections, portable

FORMATS: dict[str, Format] = {"safetensors": SAFETENSORS, "hf": HUGGING_FACE, "timm": TIMM, "onnx": ONNX}
CARD_NAME = "README.md"


@dataclass(frozen=True)
class ExportRequest:
    """What is asked for.

    Attributes:
        run: run folder, or a ``teacher_checkpoint.pth`` inside one. to: key of `FORMATS`. output: new folder.
        name: title of the model card; by default that of the run's folder.
        size_px: side of the images that the files are for; a multiple of the patch size.
        records: where results for the card are; None: in the folders ``records`` near the run.
        image: shown to both networks; None: one of the training set.
    """

    run: Path
    to: str
    output: Path
    name: str | None = None
    size_px: int = CROP_PX
    records: Path | None = None
    image: Path | None = None

    @property
    def format(self) -> Format:
        """
        Raises:
            ConfigError: there is no such format.
        """
        if self.to not in FORMATS:
            raise ConfigError(f"--to {self.to!r} is unknown: valid are {', '.join(FORMATS)}")
        return FORMATS[self.to]


def export(request: ExportRequest) -> list[Parity]:
    """Write the folder; returns how far its outputs are from the run's. One that is there already is left as it is.

    Everything is written beside ``output`` and takes its name last: it is whole or not there.

    Raises:
        ConfigError: no such format, a library is missing, or the size is no multiple of the patch size.
        MissingFolderError, CheckpointError: the run cannot be used, see `open_model`, or the outputs differ.
        OutputFolderError: ``output`` holds something else.
        ImageError: ``image`` cannot be read.
        WriteError: the folder cannot be written.
    """
    kind = request.format
    kind.require()
    run = open_run(request.run)
    name = request.name or run.path.resolve().name
    parameters = {"weights": file_hash(run.weights), "to": request.to, "name": name, "size_px": request.size_px}
    if OutputFolder(request.output, COMMAND, parameters).check():
        return [Parity(**row) for row in read_manifest(request.output)["parity"]]
    opened = open_model(request.run)
    results = facts.records_of(opened, request.records)
    features = features_from(opened, torch.device("cpu"), size_px=request.size_px)
    model = Exported(opened.backbone, portable(opened.backbone, request.size_px), features.preprocessing)
    inputs = _inputs(request, opened, features.preprocessing)
    with _whole(request.output) as temporary:
        kind.write(model, temporary)
        part = OutputFolder(temporary, COMMAND, parameters)
        described = _description(opened, model, request)
        part.close(**described)  # what reads the folder back may need it
        parity = compare(features, kind.read(temporary), inputs)
        card = _card(opened, model, name, kind, parity, results)
        (temporary / CARD_NAME).write_text(card.text(), encoding="utf-8")
        part.close(**described, parity=[row.plain() for row in parity])
    return parity


def _inputs(request: ExportRequest, opened: Opened, preprocessing: Preprocessing) -> dict[str, Tensor]:
    """Normalised images that both networks are shown: random numbers, and one real image."""
    title, image = facts.example_image(opened)
    if request.image is not None:
        title, image = "the given image", load_pixels(request.image, preprocessing.values)
    if isinstance(image, np.ndarray) and image.dtype != np.uint8:  # brought to [0, 1] by its own range already
        preprocessing = replace(preprocessing, values=DTYPE_RANGE)
    return {
        "three of random numbers": random_images(request.size_px),
        title: preprocessing(image).unsqueeze(0),
    }


def _description(opened: Opened, model: Exported, request: ExportRequest) -> dict[str, Any]:
    """For ``manifest.json``: enough to build the network again and to preprocess for it."""
    # Upstream's own form keeps the grid of the training; the others have that of the exported size.
    size_px = None if request.to == "safetensors" else request.size_px
    sections = model_sections(opened.config, size_px)
    sections["student"] |= request.format.completes
    return {
        "model": sections,
        "architecture": {**asdict(model.portable.architecture), "heads": model.portable.heads},
        "preprocessing": model.preprocessing.plain(),
        "iterations": None if opened.run is None else opened.run.iterations_done,
        "versions": versions(),
    }


def _card(
    opened: Opened, model: Exported, name: str, kind: Format, parity: list[Parity], results: list[Record]
) -> Card:
    found, student = model.portable.architecture, opened.config["student"]
    return Card(
        name=name,
        kind=kind,
        is_trained=opened.run is None or opened.run.iterations_done > 0,
        network=[
            ("architecture", f"{student['arch']}, {found.depth} blocks, {model.portable.heads} heads"),
            ("features", f"{found.width} numbers per token, patches of {found.patch_size_px} px"),
            ("registers", str(found.registers or "none")),
            ("feed-forward", found.feed_forward),
            ("parameters", f"{found.parameters:,}"),
        ],
        data=facts.data_rows(opened),
        training=facts.training_rows(opened),
        stages=facts.stage_rows(opened.config),
        results=results,
        parity=parity,
        preprocessing=model.preprocessing,
        versions=sorted(versions().items()),
    )


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A new folder beside ``output``, which takes its name when the block succeeds and is gone when it fails.

    Raises:
        WriteError: the system refuses.
    """
    temporary = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        temporary.chmod(0o755)
        yield temporary
        os.replace(temporary, output)
    except DinoNoiseError:
        raise
    except OSError as cause:
        raise WriteError(output, cause) from cause
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
