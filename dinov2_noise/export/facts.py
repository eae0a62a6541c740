"""What a run's files tell of how its backbone came about, for the model card."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise import data
from dinov2_noise.data.strings import DatasetSpec
from dinov2_noise.errors import CheckpointError, DinoNoiseError, MissingFolderError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.evaluation.runs import TEACHER, RunFolder
from dinov2_noise.export.opened import Opened, training_spec
from dinov2_noise.files import MANIFEST_NAME

Rows = list[tuple[str, str]]
_STAGE_KEYS = ("name", "epochs", "view", "restart", "anchor")


def data_rows(opened: Opened) -> Rows:
    """Images, noise and denoiser. Of folders only the names: where they lay is nobody's business."""
    rows = [("images", _without_folders(str(opened.config["train"].get("dataset_path", "not told"))))]
    spec = training_spec(opened.config, opened.run)
    if spec is None:
        return rows
    noise = _noise(spec)
    if noise:
        rows.append(("noise", noise))
    if spec.denoised is not None:
        rows.append(("denoised twins", _denoiser(spec.denoised)))
    return rows


def _without_folders(text: str) -> str:
    """A dataset string whose paths are cut to their last part."""
    parts = (token.partition("=") for token in text.split(":"))
    return ":".join(f"{key}{equals}{Path(value).name if '/' in value else value}" for key, equals, value in parts)


def _noise(spec: DatasetSpec) -> str:
    if spec.noise is not None:
        mode = ", a new realisation each epoch" if spec.noise_mode == "fresh" else ""
        return f"{spec.noise.name}, added on the fly, seed {spec.noise_seed}{mode}"
    manifest = _manifest(spec.root)
    parameters = manifest.get("parameters", {})
    if manifest.get("command") == "add-noise":
        return f"{parameters.get('noise')}, stored, seed {parameters.get('seed')}"
    return "" if spec.root.is_dir() else f"not known: the folder {spec.root.name}, which may tell, was not at hand"


def _denoiser(folder: Path) -> str:
    manifest = _manifest(folder)
    if manifest.get("command") != "denoise apply":
        return f"folder {folder.name}, of which nothing more is known"
    digest = str(manifest.get("parameters", {}).get("weights_sha256", ""))[:16]
    return f"by a denoiser trained without clean images, weights {digest}"


def _manifest(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def training_rows(opened: Opened) -> Rows:
    """Network, length, batch, recipe."""
    config = opened.config
    optim, train = config.get("optim", {}), config.get("train", {})
    total = int(optim.get("epochs", 0)) * int(train.get("OFFICIAL_EPOCH_LENGTH", 0))
    rows = []
    if opened.run is not None:
        done = opened.run.iterations_done
        rows.append(("iterations", f"{done:,} of {total:,}" if done else f"none: a random network (of {total:,})"))
    crops = config["crops"]
    rows += [
        ("images per process and iteration", str(train.get("batch_size_per_gpu", "not told"))),
        ("crops", f"{crops.get('global_crops_size')} px and {crops.get('local_crops_size')} px"),
        ("seed", str(train.get("seed", "not told"))),
    ]
    return rows


def stage_rows(config: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(name, epochs, images, what else) of each stage of the curriculum; empty without one."""
    section = config.get("curriculum") or {}
    rows = []
    for stage in section.get("stages", []):
        more = ["restart"] if stage.get("restart") else []
        if stage.get("anchor"):
            more.append(f"anchor ({_flat(stage['anchor'])})")
        more += [f"{key}: {_flat(value)}" for key, value in stage.items() if key not in _STAGE_KEYS and value]
        rows.append((str(stage.get("name")), str(stage.get("epochs")), _flat(stage.get("view")), "; ".join(more)))
    return rows


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items() if inner is not None)
    text = str(value)
    return Path(text).name if "/" in text else text


def records_of(opened: Opened, folder: Path | None) -> list[Record]:
    """Results measured on this run.

    Args:
        opened: the run. A record that names weights must name its teacher; another one the run's folder as its arm.
        folder: where to look, at any depth; None looks in the folders ``records`` of the run, one level below it, and
            of the two folders above.

    Raises:
        MissingFolderError: ``folder`` does not exist.
        CheckpointError: it holds no record of this run.
    """
    if opened.run is None:
        return []
    if folder is None:
        return list(_of_run(_near(opened.run.path.resolve()), opened.run))
    if not folder.is_dir():
        raise MissingFolderError(f"folder of records {folder} does not exist: check the path")
    found = list(_of_run(sorted(folder.rglob("*.json")), opened.run))
    if not found:
        raise CheckpointError(
            f"{folder} holds no record of {opened.name!r}: a record must name the run's {TEACHER} as its weights, or "
            "its folder as the arm; leave --records out for a card without results"
        )
    return found


def _near(run: Path) -> Iterator[Path]:
    for pattern in ("records/*.json", "*/records/*.json"):
        yield from sorted(run.glob(pattern))
    for place in run.parents[:2]:
        yield from sorted(place.glob("records/*.json"))


def _of_run(paths: Iterable[Path], run: RunFolder) -> Iterator[Record]:
    for path in paths:
        with suppress(CheckpointError, MissingFolderError):  # other JSON files lie there too
            record = Record.load(path)
            if _is_of(record, run):
                yield record


def _is_of(record: Record, run: RunFolder) -> bool:
    """Whether it was measured on the run's teacher, not on one of another iteration or of a run of the same name."""
    is_named, named = record.arm == run.path.resolve().name, record.details.get("weights")
    if not isinstance(named, str) or not named.endswith(TEACHER):
        return is_named
    if Path(named).exists():
        return Path(named).samefile(run.weights)
    return is_named and Path(named).parts[-3:] == run.weights.resolve().parts[-3:]  # a run that was moved


def example_image(opened: Opened) -> tuple[str, Image.Image | NDArray[Any]]:
    """(what it is, image): the first one of the run's data, as its network saw it, or one made up."""
    spec = training_spec(opened.config, opened.run) if opened.run is not None else None
    if spec is not None:
        with suppress(DinoNoiseError, OSError):
            return "an image of the training set", _first_image(spec)
    return "a made-up picture (the training set was not at hand)", _made_up()


def _first_image(spec: DatasetSpec) -> Image.Image | NDArray[Any]:
    from dataclasses import replace

    fixed = replace(spec, denoised=None, noise_mode="fixed")
    dataset: Any = data.DATASETS[spec.name].factory(fixed, None, None)
    found: Image.Image | NDArray[Any] = dataset.noisy_pixels(0) if spec.full_depth else dataset.noisy(0)
    return found


def _made_up() -> Image.Image:
    """Amplitudes fall with frequency as those of photographs do."""
    size, rng = 256, np.random.default_rng(0)
    rows, columns = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / size)
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * falling) for _ in range(3)]
    picture = np.stack(planes, axis=2)
    low, high = picture.min(), picture.max()
    return Image.fromarray(((picture - low) / (high - low) * 255).astype(np.uint8))
