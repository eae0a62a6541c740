"""From a folder of noisy images to the weights of a denoiser; no clean image is read.

Method: Neighbor2Neighbor, see the package ``neighbor2neighbor``. Defaults are its published ones; "Ditch the Denoiser",
arXiv 2505.12191, used batches of 8 and 100 images per class with sides of 256 to 512 px on ImageNet-1k.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dinov2_noise.denoise.device import choose_device
from dinov2_noise.denoise.images import ImageFiles
from dinov2_noise.denoise.selection import fitting_crop_px, select_images
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError, ImageError, MissingFolderError
from dinov2_noise.files import OutputFolder, atomic_path, read_manifest, source_identity
from dinov2_noise.progress import track
from neighbor2neighbor import StepRecord, Trainer, TrainingConfig, TrainingDivergedError, save_checkpoint

WEIGHTS_NAME = "denoiser.pth"
CONFIG_NAME = "config.yaml"
LOG_NAME = "loss.jsonl"
SNAPSHOT_NAME = ".snapshot.pth"
_LOG_LINES = 1000
_SNAPSHOTS = 50  # per run: an interrupted run loses at most 2 %


def train_denoiser(
    noisy: Path,
    output: Path,
    *,
    images_per_class: int | None = None,
    side_range_px: tuple[int, int] | None = None,
    device: str = "auto",
    num_workers: int = 0,
    progress: bool = True,
    **training: Any,
) -> Path:
    """Train a denoiser on a folder of noisy images.

    An interrupted run continues when started again, and ends with the weights of an uninterrupted one.

    Args:
        noisy: folder of noisy images; only its ``train`` folder is used, where it has one.
        output: folder for the weights, ``config.yaml`` and ``loss.jsonl`` (means over about a thousandth of the run).
        images_per_class: train on at most so many images of each folder.
        side_range_px: train only on images of which both sides lie in this closed range.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        num_workers: processes that load images.
        progress: show a progress bar.
        **training: fields of `neighbor2neighbor.TrainingConfig`, whose defaults are the published values.

    Returns:
        The file of weights.

    Raises:
        ConfigError: a value is out of range, or there is no such field.
        MissingFolderError: no noisy images.
        ImageError: an image cannot be read or is smaller than 64 px.
        OutputFolderError: ``output`` holds other results.
        DinoNoiseError: the loss is no longer finite.
    """
    try:
        config = TrainingConfig(**training)
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"denoise train: {cause}") from cause
    root = _training_root(noisy)
    selection: dict[str, Any] = {"images_per_class": images_per_class, "side_range_px": side_range_px}
    source = {"noisy": str(root.resolve()), **source_identity(noisy)}
    folder = OutputFolder(output, "denoise train", {**source, **selection, **asdict(config)})
    folder.open()
    if read_manifest(output)["complete"] and (output / WEIGHTS_NAME).is_file():
        _say(f"denoise train: {output} is complete; nothing to do")
        return output / WEIGHTS_NAME
    names, smallest_px = select_images(root, **selection, seed=config.seed)
    config = _with_fitting_crop(config, smallest_px)
    run = _Run(root, names, config, output)
    run.execute(choose_device(device), num_workers=num_workers, progress=progress)
    folder.close(images=len(names), crop_px_used=config.crop_px)
    run.snapshot_path.unlink(missing_ok=True)
    return output / WEIGHTS_NAME


class _Run:
    """One training run and its files."""

    def __init__(self, root: Path, names: list[str], config: TrainingConfig, output: Path) -> None:
        self.root = root
        self.names = names
        self.config = config
        self.output = output
        self.snapshot_path = output / SNAPSHOT_NAME

    def execute(self, device: torch.device, *, num_workers: int, progress: bool) -> None:
        trainer = Trainer(ImageFiles(self.root, self.names), self.config, device=device, num_workers=num_workers)
        self._resume(trainer)
        self._write_config()
        remaining = trainer.total_steps - trainer.step
        records: Iterator[StepRecord] = trainer.steps()
        if progress and remaining:
            records = track(records, total=remaining, description="denoise train")
        try:
            self._follow(trainer, records)
        except TrainingDivergedError as cause:
            raise DinoNoiseError(f"denoise train of {self.root}: {cause}") from cause
        except RuntimeError as cause:
            _raise_if_unreadable(cause)
            raise
        save_checkpoint(self.output / WEIGHTS_NAME, trainer.model)

    def _follow(self, trainer: Trainer, records: Iterator[StepRecord]) -> None:
        log_every = max(1, trainer.total_steps // _LOG_LINES)
        # Snapshots fall on the log's lines, so that a continued log has no gap and no line twice.
        snapshot_every = max(1, trainer.total_steps // _SNAPSHOTS // log_every) * log_every
        self._cut_log(trainer.step)
        pending: list[StepRecord] = []
        with (self.output / LOG_NAME).open("a", encoding="utf-8") as log:
            for record in records:
                pending.append(record)
                if record.step % log_every == 0 or record.step == record.total_steps:
                    log.write(json.dumps(_mean_record(pending)) + "\n")
                    log.flush()
                    pending.clear()
                if record.step % snapshot_every == 0:
                    with atomic_path(self.snapshot_path) as temporary:
                        torch.save({"images": self._images_id(), **trainer.state_dict()}, temporary)

    def _resume(self, trainer: Trainer) -> None:
        if not self.snapshot_path.is_file():
            return
        try:
            state = torch.load(self.snapshot_path, map_location=trainer.device, weights_only=True)
            if state["images"] != self._images_id():
                raise ValueError(f"the images of {self.root} are no longer those it was trained on")
            trainer.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, OSError, pickle.UnpicklingError) as cause:
            raise CheckpointError(
                f"cannot continue from {self.snapshot_path}: {cause}; delete that file to start anew"
            ) from cause
        _say(f"denoise train: continuing after step {trainer.step} of {trainer.total_steps}")

    def _images_id(self) -> str:
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def _write_config(self) -> None:
        content = {"noisy": str(self.root.resolve()), "images": len(self.names), **asdict(self.config)}
        with atomic_path(self.output / CONFIG_NAME) as temporary:
            OmegaConf.save(OmegaConf.create(content), temporary)

    def _cut_log(self, last_step: int) -> None:
        """Drop lines written after the snapshot, and a last one cut short."""
        path = self.output / LOG_NAME
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _training_root(noisy: Path) -> Path:
    if not noisy.is_dir():
        raise MissingFolderError(f"noisy folder {noisy} does not exist: check the path")
    return noisy / "train" if (noisy / "train").is_dir() else noisy


def _with_fitting_crop(config: TrainingConfig, smallest_px: int) -> TrainingConfig:
    crop_px = fitting_crop_px(config.crop_px, smallest_px)
    if crop_px < config.crop_px:
        _say(
            f"denoise train: the smallest side of all images is {smallest_px} px, "
            f"so crops are {crop_px} px instead of {config.crop_px} px"
        )
    return replace(config, crop_px=crop_px)


def _raise_if_unreadable(cause: RuntimeError) -> None:
    """A loader's worker process hands an ImageError over as the last line of a RuntimeError's traceback."""
    last_line = str(cause).strip().splitlines()[-1:]
    if last_line and ImageError.__name__ in last_line[0]:
        raise DinoNoiseError(last_line[0].partition(f"{ImageError.__name__}: ")[2]) from cause


def _mean_record(records: list[StepRecord]) -> dict[str, float]:
    """The last record, with the loss terms averaged."""
    averaged = ("loss", "reconstruction", "regularization")
    means = {name: sum(getattr(record, name) for record in records) / len(records) for name in averaged}
    return {**records[-1]._asdict(), **means}


def _say(message: str) -> None:
    print(message, file=sys.stderr)
