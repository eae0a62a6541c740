"""A backbone and its preprocessing, from the folder of a run or from a folder that `export` wrote."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise import data, weights
from dinov2_noise.configs import register_guard
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError, PluginError
from dinov2_noise.evaluation.identity import file_hash
from dinov2_noise.evaluation.runs import RunFolder, located, open_run
from dinov2_noise.export.preprocessing import Preprocessing
from dinov2_noise.files import MANIFEST_NAME
from dinov2_noise.upstream import SEAMS, importing
from dinov2_noise.upstream.backbone import build_from_sections

COMMAND = "export"


@dataclass(frozen=True)
class Opened:
    """A backbone in evaluation mode, on the CPU, without gradients.

    Attributes:
        path: what was opened. config: the merged config of the run; of an exported folder the parts that decide the
            network. weights_hash: see `file_hash`, of the run's teacher checkpoint. run: None for an exported folder.
    """

    path: Path
    backbone: nn.Module
    preprocessing: Preprocessing
    config: Mapping[str, Any]
    weights_hash: str
    name: str
    run: RunFolder | None = None


def open_model(path: Path) -> Opened:
    """Open a run folder, a ``teacher_checkpoint.pth`` inside one, or an exported folder.

    Raises:
        MissingFolderError: there is nothing of the kind.
        CheckpointError: there are no weights yet, they do not fit the config, or hold values that are not finite.
        ConfigError: the run's ``config.yaml`` cannot be read.
        PluginError: DINOv2 cannot be imported, or was imported before without its patch.
    """
    if importlib.util.find_spec("dinov2") is None:
        raise PluginError("no importable dinov2 found: set PYTHONPATH to your checkout (`dinov2-noise doctor` tells)")
    importing.install(SEAMS)  # also where the checkout is not patched
    manifest = _export_manifest(path)
    return _open_run(open_run(path)) if manifest is None else _open_export(path, manifest)


def _export_manifest(path: Path) -> dict[str, Any] | None:
    """What ``manifest.json`` of an exported folder holds; None where it is none."""
    try:
        found = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("command") == COMMAND else None


def _open_run(run: RunFolder) -> Opened:
    config = read_config(run.config_file)
    return Opened(
        path=run.path,
        backbone=_filled(config, run.weights),
        preprocessing=_of_training(config),
        config=config,
        weights_hash=file_hash(run.weights),
        name=run.path.resolve().name,
        run=run,
    )


def _open_export(path: Path, manifest: Mapping[str, Any]) -> Opened:
    try:
        model, preprocessing = manifest["model"], Preprocessing.of(manifest["preprocessing"])
        parameters = manifest["parameters"]
        source, name, kind = parameters["weights"], parameters["name"], parameters["to"]
    except (KeyError, TypeError, ValueError) as cause:
        raise CheckpointError(f"{path / MANIFEST_NAME} is not what `dinov2-noise export` writes: {cause!r}") from cause
    if kind == "onnx":
        raise CheckpointError(
            f"{path} holds an ONNX file, a program without PyTorch's weights: run it with onnxruntime (its README.md "
            "tells how), or export --to safetensors"
        )
    return Opened(path, _filled(model, path), preprocessing, model, source, name)


def read_config(path: Path) -> dict[str, Any]:
    """The merged config beside a run, as plain containers.

    Raises:
        ConfigError: it cannot be read, or lacks the sections that decide the network.
    """
    register_guard()
    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException) as cause:
        raise ConfigError(f"cannot read the config {path}: {' '.join(str(cause).split())}") from cause
    lacking = [key for key in ("student", "crops", "train") if not isinstance(dict(found or {}).get(key), dict)]
    if lacking:
        raise ConfigError(
            f"config {path} has no section {', '.join(lacking)}: it is not what upstream's training saves"
        )
    return dict(found)


def _filled(config: Mapping[str, Any], source: Path) -> nn.Module:
    """The network of ``config`` with the weights of ``source``, ready for evaluation."""
    model = build_from_sections({key: config[key] for key in ("student", "crops")})
    found = weights.read(source)
    for name, value in found.backbone.items():
        if not value.isfinite().all():
            raise CheckpointError(
                f"{source} holds values that are not finite, in {name}: its training had diverged; take an earlier "
                "checkpoint"
            )
    weights.load_backbone(model, found, required_percent=100)
    return model.eval().requires_grad_(False)


def _of_training(config: Mapping[str, Any]) -> Preprocessing:
    """With the values for black and white that the run's dataset string names."""
    spec = training_spec(config)
    return Preprocessing() if spec is None else Preprocessing(values=spec.values, full_depth=spec.full_depth)


def training_spec(config: Mapping[str, Any], run: RunFolder | None = None) -> data.DatasetSpec | None:
    """The run's dataset string, parsed; None where it is one of upstream's own, which name no such values.

    With ``run`` its relative folders are found from anywhere, as `located` does it.
    """
    text = str(config["train"].get("dataset_path", ""))
    with suppress(DinoNoiseError):
        return data.parse_dataset_string(text if run is None else located(text, run.path))
    return None
