"""From noisy images to the weights of a denoiser; no clean image is read, unless for validation.

Method: Neighbor2Neighbor, see the package ``neighbor2neighbor``. Defaults are its published ones; "Ditch the Denoiser",
arXiv 2505.12191, used batches of 8 and 100 images per class with sides of 256 to 512 px on ImageNet-1k.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.denoise.images import CACHE_BYTES, Chosen, Source, open_source, unfinished
from dinov2_noise.denoise.interrupt import Deferred
from dinov2_noise.denoise.monitor import Monitor
from dinov2_noise.denoise.parallel import Processes, joined, of_first, wait_for_all
from dinov2_noise.denoise.samples import choose_samples
from dinov2_noise.denoise.selection import fitting_crop_px, select_images
from dinov2_noise.denoise.settings import CONFIG_NAME, write_settings
from dinov2_noise.denoise.sizes import SIZES_NAME
from dinov2_noise.denoise.skipping import SKIPPED_NAME, Skipped
from dinov2_noise.denoise.snapshot import (
    SNAPSHOT_NAME,
    Snapshots,
    diverged,
    require_finite_weights,
    require_same_state,
    telling_of_disk,
    telling_of_images,
)
from dinov2_noise.denoise.validation import Validation
from dinov2_noise.errors import ConfigError, DivergedError
from dinov2_noise.files import OutputFolder, atomic_path, read_manifest, require_outside
from dinov2_noise.noise.audit import warn_if_correlated
from dinov2_noise.progress import track
from dinov2_noise.writing import locked
from neighbor2neighbor import StepRecord, Trainer, TrainingConfig, TrainingDivergedError, save_checkpoint

WEIGHTS_NAME = "denoiser.pth"
_LOCK_NAME = ".lock"
_SNAPSHOTS = 50  # per run: a killed run loses at most 2 %,
_SNAPSHOT_S = 600.0  # or ten minutes
_GPU_WORKERS = 8  # a GPU takes a step in the time in which one core decodes an image or two
# These fields came later; at their defaults they are left out of manifests, so that older ones stay valid.
_LATER_FIELDS = ("stride", "ema", "precision")


def train_denoiser(
    noisy: Path | str,
    output: Path,
    *,
    images_per_class: int | None = None,
    side_range_px: tuple[int, int] | None = None,
    device: str = "auto",
    num_workers: int | None = None,
    sample_every: int | None = None,
    validation: tuple[Path, Path] | None = None,
    values: ValueRange = DTYPE_RANGE,
    skip_bad: int = 0,
    progress: bool = True,
    **training: Any,
) -> Path:
    """Train a denoiser on noisy images.

    An interrupted run continues when started again, and ends with the weights of an uninterrupted one. Started by
    torchrun, all processes train together and the first one writes the files.

    Args:
        noisy: folder of noisy images, of which only ``train`` is used where it has one; or a dataset string such as
            ``ImageNet:split=TRAIN:root=…[:noise=gauss100]``.
        output: folder for weights, ``config.yaml``, ``loss.jsonl`` (means over about a thousandth of the run), pictures
            and TensorBoard's files.
        images_per_class: train on at most so many images of each class (folder, where there are no classes), drawn by
            the seed.
        side_range_px: train only on images of which both sides lie in this closed range.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        num_workers: processes that load images; the result does not depend on it. Default: none for a CPU.
        sample_every: steps between two pictures (and validations); 0: no pictures. Default: about 20 per run.
        validation: folders of noisy images and of their clean versions, whose PSNR is measured.
        values: which stored values of a folder's images are black and white; a dataset string says it itself. The
            weights are for images read in this way.
        skip_bad: leave out so many images that cannot be read; the manifest lists them as ``skipped``. Where only the
            pixels are broken, the next image stands in for it. Exact for a continued run, as long as files stay so.
        progress: show a progress bar.
        **training: fields of `neighbor2neighbor.TrainingConfig`, whose defaults are the published values.

    Returns:
        The file of weights.

    Raises:
        ConfigError: a value is out of range, or there is no such field.
        MissingFolderError, DatasetStringError, MetadataError: no noisy images are found there.
        ImageError: more images than ``skip_bad`` cannot be read, or one is smaller than 64 px (times the stride).
        PairError: a validation image has no clean version.
        OutputFolderError: ``output`` holds other results, or lies in the noisy folder.
        WriteError, DinoNoiseError: a file cannot be written. BusyError: the same training is being run.
        DivergedError: the loss or the weights are no longer finite.
    """
    config = _config(training, num_workers=num_workers, sample_every=sample_every, skip_bad=skip_bad)
    processes = Processes.from_environment()
    job = _Job(
        output=output,
        selection={"images_per_class": images_per_class, "side_range_px": side_range_px},
        processes=processes,
        device=choose_device(device, processes),
        num_workers=num_workers,
        sample_every=sample_every,
        validation=validation,
        skipped=Skipped(output / SKIPPED_NAME, skip_bad),
        progress=progress and processes.is_first,
    )
    with joined(processes, job.device), ExitStack() as held:
        job.run(open_source(noisy, values), config, held)
        wait_for_all()
    return output / WEIGHTS_NAME


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One training run and its files."""

    output: Path
    selection: dict[str, Any]
    processes: Processes
    device: torch.device
    num_workers: int | None
    sample_every: int | None
    validation: tuple[Path, Path] | None
    skipped: Skipped
    progress: bool

    def run(self, source: Source, config: TrainingConfig, held: ExitStack) -> None:
        parameters = {**source.identity(), **self.selection, **_identity(config)}
        folder = OutputFolder(self.output, "denoise train", parameters)
        is_first = self.processes.is_first
        if of_first(is_first and self._is_complete(folder)):
            self._say(f"{self.output} is complete; nothing to do")
            self._clean()  # it may have been killed just before
            return
        pairs = Validation(*self.validation, source.values) if is_first and self.validation is not None else None
        if is_first and not (self.output / SNAPSHOT_NAME).is_file():
            self.skipped.delete()
        indices, smallest_px = of_first(self._select(source, config) if is_first else ([], 0))
        images = Chosen(source, indices, CACHE_BYTES // max(1, self._workers), self.skipped)
        if is_first:
            folder.open()
            held.enter_context(locked(self.output / _LOCK_NAME, f"the training in {self.output}"))
            # With the crop that was asked for: given back to this very folder, the file must mean the same run.
            write_settings(self.output / CONFIG_NAME, config, source=source, images=len(images), **self.selection)
        config = self._with_fitting_crop(config, smallest_px)
        wait_for_all()
        snapshots = Snapshots(self.output / SNAPSHOT_NAME, images)
        with telling_of_images(), telling_of_disk(self.output):
            self._train(images, config, snapshots, pairs)
        if is_first:
            skipped = self.skipped.paths()
            folder.close(images=len(images), crop_px_used=config.crop_px, **({"skipped": skipped} if skipped else {}))
            self._clean()

    def _clean(self) -> None:
        """Delete what only a run that goes on needs; of a complete one it may stay, where nothing can be written."""
        if self.processes.is_first:
            self.skipped.delete()
            for name in (SNAPSHOT_NAME, SIZES_NAME, _LOCK_NAME):
                with suppress(OSError):
                    (self.output / name).unlink(missing_ok=True)

    def _is_complete(self, folder: OutputFolder) -> bool:
        return (
            folder.check() and bool(read_manifest(self.output)["complete"]) and (self.output / WEIGHTS_NAME).is_file()
        )

    def _select(self, source: Source, config: TrainingConfig) -> tuple[list[int], int]:
        require_outside(self.output, source.root)
        self._warn(unfinished(source))
        return select_images(
            source,
            **self.selection,
            seed=config.seed,
            multiple_px=config.crop_multiple_px,
            skipped=self.skipped,
            cache=self.output / SIZES_NAME,
        )

    def _with_fitting_crop(self, config: TrainingConfig, smallest_px: int) -> TrainingConfig:
        crop_px = fitting_crop_px(config.crop_px, smallest_px, config.crop_multiple_px)
        if crop_px < config.crop_px:
            self._say(
                f"the smallest side of all images is {smallest_px} px, "
                f"so crops are {crop_px} px instead of {config.crop_px} px"
            )
        return replace(config, crop_px=crop_px)

    def _warn(self, text: str | None) -> None:
        if text is not None:
            self._say(f"warning: {text}")

    @property
    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return min(_GPU_WORKERS, (os.cpu_count() or 1)) if self.device.type == "cuda" else 0

    def _train(self, images: Chosen, config: TrainingConfig, snapshots: Snapshots, pairs: Validation | None) -> None:
        trainer = self._trainer(images, config)
        pending = snapshots.restore(trainer)
        require_same_state(trainer, snapshots)
        if pending is None:
            self._warn(warn_if_correlated(images, stride=config.stride) if self.processes.is_first else None)
        else:
            self._say(f"continuing after step {trainer.step} of {trainer.total_steps}")
        monitor: Monitor | None = None
        if self.processes.is_first:
            multiple_px = config.crop_multiple_px // 2  # what the network wants of whole images
            samples = [] if self.sample_every == 0 else choose_samples(images, pairs, multiple_px)
            monitor = Monitor(
                self.output, trainer, samples, pairs, sample_every=self.sample_every, pending=pending or ()
            )
        with nullcontext() if monitor is None else monitor:
            try:
                _follow(trainer, self._records(trainer), monitor, snapshots)
            except TrainingDivergedError as cause:
                raise diverged(trainer, snapshots, str(cause)) from cause
        if monitor is not None:
            with atomic_path(self.output / WEIGHTS_NAME, durable=True) as temporary:
                save_checkpoint(temporary, trainer.denoiser(), notes=images.source.values.parameter())
            score = monitor.last_score()
            if score is not None:
                self._say(f"validation: {score.psnr_db:.2f} dB denoised, {score.noisy_psnr_db:.2f} dB noisy")

    def _trainer(self, images: Chosen, config: TrainingConfig) -> Trainer:
        rank, world_size = self.processes.rank, self.processes.world_size
        try:
            return Trainer(
                images, config, device=self.device, num_workers=self._workers, rank=rank, world_size=world_size
            )
        except ValueError as cause:
            raise ConfigError(f"denoise train: {cause}") from cause

    def _records(self, trainer: Trainer) -> Iterator[StepRecord]:
        remaining = trainer.total_steps - trainer.step
        records = trainer.steps()
        return track(records, total=remaining, description="denoise train") if self.progress and remaining else records

    def _say(self, message: str) -> None:
        if self.processes.is_first:
            print(f"denoise train: {message}", file=sys.stderr)


def _follow(trainer: Trainer, records: Iterator[StepRecord], monitor: Monitor | None, snapshots: Snapshots) -> None:
    """Take all steps; in the process that has a monitor, write what is to be written after each."""
    snapshot_every, saved_at = max(1, trainer.total_steps // _SNAPSHOTS), time.monotonic()
    with Deferred() as signals:
        try:
            for record in records:
                if monitor is not None:
                    monitor.log(record)
                    is_due = record.step % snapshot_every == 0 or record.step == trainer.total_steps
                    is_due = is_due or time.monotonic() - saved_at > _SNAPSHOT_S
                    if is_due or monitor.is_due(record.step) or signals.received:
                        require_finite_weights(trainer, snapshots)
                    if monitor.is_due(record.step):
                        monitor.look(record.step)
                    if is_due or signals.received:
                        snapshots.save(trainer, monitor.state())
                        saved_at = time.monotonic()
                signals.leave()
        except RuntimeError as cause:
            # Ctrl-C also ends the loader's processes, and SIGTERM the other ranks: then the next step fails.
            is_broken = isinstance(cause, (DivergedError, TrainingDivergedError))
            if monitor is not None and signals.received and not is_broken:
                require_finite_weights(trainer, snapshots)
                snapshots.save(trainer, monitor.state())
                signals.leave()
            raise


def _config(training: dict[str, Any], **counts: int | None) -> TrainingConfig:
    for name, count in counts.items():
        if count is not None and count < 0:
            raise ConfigError(f"denoise train: {name} must not be negative, got {count}")
    try:
        return TrainingConfig(**training)
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"denoise train: {cause}") from cause


def _identity(config: TrainingConfig) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(config)}
    settings = asdict(config)
    return {name: value for name, value in settings.items() if name not in _LATER_FIELDS or value != defaults[name]}
