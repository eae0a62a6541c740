"""What a training run tells while it goes: loss curve, TensorBoard, pictures, validation. Nothing here changes it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from dinov2_noise.curves import Curves
from dinov2_noise.denoise.samples import Sample, draw_samples
from dinov2_noise.denoise.validation import Score, Validation, denoising
from dinov2_noise.files import atomic_path
from neighbor2neighbor import StepRecord, Trainer

LOG_NAME = "loss.jsonl"
VALIDATION_NAME = "validation.jsonl"
SAMPLES_NAME = "samples"
CURVES_NAME = "tensorboard"
_LOG_LINES = 1000
SAMPLES = 20  # pictures per run, about
_AVERAGED = ("loss", "reconstruction", "regularization")


class JsonLines:
    """A file of one JSON object a line, each with its ``step``; one that ends at a step can be continued from there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, last_step: int) -> None:
        """Drop what was written after a step, and from the first line on that a power cut has spoilt."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        kept = list(takewhile(lambda line: _stands(line, last_step), lines))
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(b"".join(kept))

    def append(self, record: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def last(self) -> dict[str, Any] | None:
        """The last record, if there is one."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return json.loads(lines[-1]) if lines else None


class Monitor:
    """Follows one run, in one process, and writes to ``output``.

    ``loss.jsonl`` holds means over about a thousandth of the run; TensorBoard shows the same. Every ``sample_every``
    steps and at the end come a picture and, where clean images are given, the PSNR.

    Args:
        output: folder of the run.
        trainer: where it stands; files are cut back to there.
        samples: rows of the pictures.
        validation: pairs whose PSNR is measured, or None.
        sample_every: steps; 0: no pictures, and the PSNR at the end only; None: about twenty times per run.
        pending: of `state` when the run was interrupted.
    """

    def __init__(
        self,
        output: Path,
        trainer: Trainer,
        samples: Sequence[Sample],
        validation: Validation | None,
        *,
        sample_every: int | None,
        pending: Sequence[Sequence[float]] = (),
    ) -> None:
        self.output = output
        self.trainer = trainer
        self.samples = samples
        self.validation = validation
        total = trainer.total_steps
        self.log_every = max(1, total // _LOG_LINES)
        self.sample_every = max(1, total // SAMPLES) if sample_every is None else sample_every
        self._pending = [StepRecord(*record) for record in pending]  # type: ignore[arg-type]  # int and float fields
        self._losses, self._scores = JsonLines(output / LOG_NAME), JsonLines(output / VALIDATION_NAME)
        self._losses.cut(trainer.step)
        if validation is not None or self._scores.path.is_file():
            self._scores.cut(trainer.step)
        self._curves = Curves(output / CURVES_NAME, trainer.step)
        self._since, self._from_step = time.monotonic(), trainer.step

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write out what TensorBoard's files still lack; a failure in that does not hide what has stopped the run."""
        with nullcontext() if kind is None else suppress(OSError):
            self._curves.close()

    def state(self) -> list[list[float]]:
        """For a snapshot: records that are not in the log yet, so that an interrupted log equals an uninterrupted one.

        What was shown so far is then on the disk, for a continued run does not show it again.
        """
        self._curves.flush()
        return [list(record) for record in self._pending]

    def is_due(self, step: int) -> bool:
        """Whether a picture or a PSNR is to be made after this step, for which the weights must be finite."""
        last = step == self.trainer.total_steps
        return (self.sample_every > 0 and (last or step % self.sample_every == 0)) or (
            last and self.validation is not None
        )

    def log(self, record: StepRecord) -> None:
        """Take in one step."""
        self._pending.append(record)
        if record.step % self.log_every and record.step < record.total_steps:
            return
        mean = _mean_record(self._pending)
        self._pending.clear()
        self._losses.append(mean)
        now = time.monotonic()
        images = (record.step - self._from_step) * self.trainer.config.batch_size
        curves = {f"train/{name}": value for name, value in mean.items() if name not in ("step", "total_steps")}
        self._curves.add(record.step, {**curves, "train/images_per_s": images / max(now - self._since, 1e-9)})
        self._since, self._from_step = now, record.step

    def look(self, step: int) -> None:
        """Make the picture and the PSNR of this step."""
        began = time.monotonic()
        denoise = denoising(self.trainer.denoiser(), self.trainer.device)
        if self.sample_every:
            picture = draw_samples(self.samples, denoise, f"step {step} of {self.trainer.total_steps}")
            with atomic_path(self.output / SAMPLES_NAME / f"step_{step:07d}.png") as temporary:
                picture.save(temporary)
            self._curves.add_image(step, "samples", picture)
        if self.validation is not None:
            score = self.validation.score(denoise)
            self._scores.append({"step": step, **score._asdict(), "images": len(self.validation)})
            self._curves.add(step, {"validation/psnr_db": score.psnr_db})
        self._since += time.monotonic() - began  # the speed is that of training

    def last_score(self) -> Score | None:
        """What validation said last."""
        record = None if self.validation is None else self._scores.last()
        return None if record is None else Score(record["psnr_db"], record["noisy_psnr_db"])


def _stands(line: bytes, last_step: int) -> bool:
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["step"] <= last_step)
    except (ValueError, TypeError, KeyError):
        return False


def _mean_record(records: Sequence[StepRecord]) -> dict[str, float]:
    """The last record, with the loss terms averaged."""
    means = {name: sum(getattr(record, name) for record in records) / len(records) for name in _AVERAGED}
    return {**records[-1]._asdict(), **means}
