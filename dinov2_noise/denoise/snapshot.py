"""Snapshots of a training run, and what is said when it cannot go on."""

from __future__ import annotations

import errno
import hashlib
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from dinov2_noise.denoise.images import Chosen
from dinov2_noise.denoise.parallel import of_first
from dinov2_noise.errors import CheckpointError, DinoNoiseError, DivergedError, ImageError, WriteError
from dinov2_noise.files import atomic_path
from neighbor2neighbor import Trainer
from neighbor2neighbor.crops import CropStream

SNAPSHOT_NAME = ".snapshot.pth"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH_NO_ROOM = ("inline_container", "iostream error")
_SHOWN = 8  # images of a batch
_OUR_ERROR = re.compile(r"dinov2_noise\.errors\.(\w+): ")
_REPLACE_IT = (
    "\nReplace it and give the same command again, or add --skip-bad N, which leaves out N such images: it continues. "
    "`dinov2-noise check FOLDER` names them all."
)


class Snapshots:
    """The file from which an interrupted run continues."""

    def __init__(self, path: Path, images: Chosen) -> None:
        self.path = path
        self.images = images
        self.images_id = hashlib.sha256("\n".join(images.names).encode("utf-8", "surrogateescape")).hexdigest()

    def save(self, trainer: Trainer, pending: Sequence[Sequence[float]]) -> None:
        """Write the state of ``trainer``, and the monitor's."""
        with atomic_path(self.path, durable=True) as temporary:
            own = {"images": self.images_id, "crop_px": trainer.config.crop_px, "pending": list(pending)}
            torch.save({**own, **trainer.state_dict()}, temporary)

    def restore(self, trainer: Trainer) -> list[list[float]] | None:
        """Bring ``trainer`` to the snapshot and return the monitor's state; None when there is no snapshot.

        Raises:
            CheckpointError: the file cannot be read, or is of other images or another training.
        """
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location=trainer.device, weights_only=True)
            if state["images"] != self.images_id:
                raise ValueError(f"the images of {self.images.source.label} are no longer those it was trained on")
            before, now = state.get("crop_px", trainer.config.crop_px), trainer.config.crop_px
            if before != now:
                raise ValueError(f"crops were {before} px and are {now} px now: the smallest image is another one")
            trainer.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError) as cause:
            raise CheckpointError(
                f"cannot continue from {self.path}: {cause}; delete that file to start anew"
            ) from cause
        pending: list[list[float]] = state.get("pending", [])
        return pending


def require_finite_weights(trainer: Trainer, snapshots: Snapshots) -> None:
    """Check the weights after the last finished step.

    Raises:
        DivergedError: they are not finite.
    """
    if not _weights_are_finite(trainer):
        where = f"step {trainer.step} of {trainer.total_steps}"
        rate = trainer.optimizer.param_groups[0]["lr"]
        raise diverged(
            trainer,
            snapshots,
            f"weights are not finite after {where} (learning rate {rate:g}): lower the learning rate",
        )


def diverged(trainer: Trainer, snapshots: Snapshots, what: str) -> DivergedError:
    """The error of a run whose loss or weights are not finite; names the images of the batch at fault."""
    # With broken weights the loss only shows what the step before has done.
    step = trainer.step if _weights_are_finite(trainer) else max(0, trainer.step - 1)
    images, size = snapshots.images, trainer.config.batch_size
    draws = CropStream(len(images), trainer.config.seed, step * size, (step + 1) * size)
    paths = list(dict.fromkeys(str(images.path(draw.image_index)) for draw in draws))
    more = f"\n  … and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    way_out = "Lower --lr and train into another folder"
    if snapshots.path.is_file():
        way_out += (
            "; or, if something is wrong with these images, replace them and give the same command again: it continues "
            f"from the last snapshot, {snapshots.path}"
        )
    named = "".join(f"\n  {path}" for path in paths[:_SHOWN])
    return DivergedError(
        f"denoise train of {images.source.label}: {what}\n"
        f"Images of the batch of step {step + 1}:{named}{more}\n{way_out}."
    )


@contextmanager
def telling_of_images() -> Iterator[None]:
    """In the block, an error of ours from a loader's process, where it is the end of a traceback, is that error again.

    Raises:
        ImageError: an image cannot be used, and what to do. DinoNoiseError: another error of ours.
    """
    try:
        yield
    except ImageError as cause:
        raise ImageError(cause.path, f"{cause.cause}{_REPLACE_IT}") from cause
    except (RuntimeError, DinoNoiseError) as cause:
        found = list(_OUR_ERROR.finditer(str(cause)))
        if not found:
            raise
        text = str(cause)[found[-1].end() :].strip()
        raise DinoNoiseError(text + (_REPLACE_IT if found[-1][1] == ImageError.__name__ else "")) from cause


@contextmanager
def telling_of_disk(folder: Path) -> Iterator[None]:
    """In the block, a failure to write says what to do; torch tells a full disk in words of its own.

    Raises:
        DinoNoiseError: there is no room in ``folder``. WriteError: as it came.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError) as cause:
        is_full = isinstance(cause, OSError) and cause.errno in _NO_ROOM
        if not is_full and not (isinstance(cause, RuntimeError) and any(word in str(cause) for word in _TORCH_NO_ROOM)):
            raise
        raise DinoNoiseError(
            f"cannot write to {folder}; is the disk full? Make room and give the same command again: it continues. "
            f"({cause})"
        ) from cause


def require_same_state(trainer: Trainer, snapshots: Snapshots) -> None:
    """Check that all processes are about to do the same; all must call it.

    Raises:
        CheckpointError: this one has found other images or another snapshot than process 0.
    """
    ours = [trainer.step, snapshots.images_id]
    if of_first(ours) != ours:
        raise CheckpointError(
            f"process {trainer.rank} sees other files in {snapshots.images.source.label} or {snapshots.path.parent} "
            f"than process 0 (it would continue after step {trainer.step}): both must be on a disk that all machines "
            "share; give the command again"
        )


def _weights_are_finite(trainer: Trainer) -> bool:
    return all(bool(torch.isfinite(weights).all()) for weights in trainer.model.parameters())
