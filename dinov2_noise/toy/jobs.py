"""What one process does: train and probe the arms that begin alike with one seed, or make the denoised digits."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinov2_noise.evaluation.records import Record, versions
from dinov2_noise.files import atomic_path
from dinov2_noise.toy.arms import (
    ARMS,
    EPOCHS,
    METRIC,
    NOISE_SEED,
    PROBE_EPOCHS,
    SWITCH_EPOCH,
    Arm,
    Settings,
    record_path,
    record_paths,
)
from dinov2_noise.toy.denoised import denoise, train_on
from dinov2_noise.toy.digits import DigitSet, load_arrays
from dinov2_noise.toy.idx import DigitsError
from dinov2_noise.toy.model import Encoder
from dinov2_noise.toy.seeding import Stream, generator
from dinov2_noise.toy.train import Digits, Stage, add_noise, pretrain, probe
from neighbor2neighbor import to_uint8

DIGITS_FILE, DENOISED_FILE = "digits.npz", "denoised.npz"
DENOISER = "denoiser"
FAMILIES = {
    "noisy": ("random", "noisy"),
    "clean": ("clean", "clean-to-noisy"),
    "denoised": ("denoiser-kept", "denoised-to-noisy"),
}
"""Arms by what their first stage sees; the second of a pair goes on from the first's weights at its switch."""


@dataclass(frozen=True)
class Job:
    """Train and probe the arms of one family with one seed; or (``denoiser``) make the denoised digits.

    Attributes:
        output: the experiment's folder.
        settings: the experiment's.
        family: a key of `FAMILIES`, or ``denoiser``.
        seed: of the runs; the denoiser has seed 0.
    """

    output: Path
    settings: Settings
    family: str
    seed: int = 0

    def is_done(self) -> bool:
        if self.family == DENOISER:
            return (self.output / DENOISED_FILE).is_file()
        names = FAMILIES[self.family]
        return all(path.is_file() for name in names for path in record_paths(self.output, name, self.seed))

    def __call__(self) -> None:
        with one_thread():
            if self.family == DENOISER:
                write_denoised(self.output, self.settings)
            else:
                _Family(self).run()


@contextmanager
def one_thread() -> Iterator[None]:
    """Jobs run side by side, one per core; and sums in another order would be other numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Family:
    """One job's digits and what it does with them."""

    def __init__(self, job: Job) -> None:
        self.job, self.settings, self.seed = job, job.settings, job.seed
        self.digits = DigitSet.load(job.output / DIGITS_FILE)
        self.train, self.test = seen_and_tested(job.output, self.digits, job.settings)

    def run(self) -> None:
        """Do what has no record yet."""
        for name in FAMILIES[self.job.family]:
            arm = ARMS[name]
            missing = [
                kind for kind in arm.probed_on if not record_path(self.job.output, name, kind, self.seed).is_file()
            ]
            if missing:
                start = time.process_time()
                encoder = self._pretrained(arm)
                self._probe(arm, encoder, missing, start)

    def _pretrained(self, arm: Arm) -> Encoder:
        encoder = Encoder(generator(self.seed, Stream.INIT))
        if len(arm.views) == 1:
            self._first_stage(encoder, EPOCHS)
        elif arm.views:
            if self._switch_file.is_file():
                _load_weights(encoder, self._switch_file)
            else:
                self._first_stage(encoder, SWITCH_EPOCH)
            stage = self._stage(arm.views[1], EPOCHS - SWITCH_EPOCH)
            pretrain(encoder, stage, self.settings.optimization, seed=self.seed, part=1)
        return encoder

    def _first_stage(self, encoder: Encoder, epochs: int) -> None:
        """Train, and keep the weights at the switch. The shorter run's steps are the first ones of the longer."""
        switch = self.settings.steps(SWITCH_EPOCH)

        def keep(step: int) -> None:
            if step == switch:
                with atomic_path(self._switch_file) as temporary:
                    torch.save(encoder.state_dict(), temporary)

        stage = self._stage(self.job.family, epochs)
        goes_on = any(len(ARMS[name].views) > 1 for name in FAMILIES[self.job.family])
        on_step = keep if goes_on else None
        pretrain(encoder, stage, self.settings.optimization, seed=self.seed, part=0, on_step=on_step)

    @property
    def _switch_file(self) -> Path:
        return self.job.output / "weights" / f"{self.job.family}-seed{self.seed}-switch.pt"

    def _stage(self, view: str, epochs: int) -> Stage:
        images, noise_std = self.train[view]
        return Stage(images, noise_std, self.settings.steps(epochs))

    def _probe(self, arm: Arm, encoder: Encoder, kinds: list[str], start: float) -> None:
        for kind in kinds:
            images, noise_std = self.train[kind]
            accuracy = probe(
                encoder,
                Digits(images, torch.from_numpy(self.digits.train_labels)),
                Digits(self.test[kind], torch.from_numpy(self.digits.test_labels)),
                self.settings.optimization,
                steps=self.settings.steps(PROBE_EPOCHS),
                noise_std=noise_std,
                seed=self.seed,
            )
            now = time.process_time()
            details = self._details(arm, kind) | {"cpu_s": round(now - start, 2)}
            start = now
            record = Record(
                *(arm.name, METRIC, accuracy, len(self.digits.test_labels), self.seed),
                dataset=f"{self.digits.name}:{kind}",
                details=details,
                versions=versions(),
            )
            record.save(record_path(self.job.output, arm.name, kind, self.seed))

    def _details(self, arm: Arm, kind: str) -> dict[str, Any]:
        settings = self.settings
        lengths = (SWITCH_EPOCH, EPOCHS - SWITCH_EPOCH) if len(arm.views) == 2 else (EPOCHS,)
        is_clean = kind == "clean"
        return {
            "noise": "clean" if is_clean else f"gauss{255 * settings.noise_std:g}",
            "snr_db": None if is_clean else snr_db(self.test["clean"], self.test["noisy"]),
            "noise_draws": settings.noise_draws,
            "probed_on": kind,
            "stages": [[view, settings.steps(epochs)] for view, epochs in zip(arm.views, lengths, strict=False)],
            "probe_steps": settings.steps(PROBE_EPOCHS),
            "learning_rate": settings.optimization.learning_rate,
            "batch_size": settings.optimization.batch_size,
            "train_images": len(self.digits.train_labels),
        }


def _load_weights(encoder: Encoder, path: Path) -> None:
    try:
        encoder.load_state_dict(torch.load(path, weights_only=True))
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as cause:
        raise DigitsError(f"cannot use {path}: it is damaged. Delete it: it is made again") from cause


def psnr_db(images: torch.Tensor, clean: torch.Tensor) -> float:
    """``-10 log10`` of the mean squared error over all images, on the [0, 1] scale."""
    return float(-10 * torch.log10((images - clean).square().mean()))


def snr_db(clean: torch.Tensor, noisy: torch.Tensor) -> float:
    """Mean over images ``(N, H, W)`` of ``10 log10(E[x^2] / E[(y - x)^2])``; black images are left out."""
    signal = clean.square().mean(dim=(1, 2))
    noise = (noisy - clean).square().mean(dim=(1, 2))
    seen = signal > 0
    return float((10 * torch.log10(signal[seen] / noise[seen])).mean())


def seen_and_tested(
    output: Path, digits: DigitSet, settings: Settings
) -> tuple[dict[str, tuple[torch.Tensor, float]], dict[str, torch.Tensor]]:
    """Per view: training images with the noise to be added to them in each step; and test images."""
    train, test = _clean_images(digits)
    is_fixed = settings.noise_draws == "fixed"
    noisy = (_noisy(train, settings, 0), 0.0) if is_fixed else (train, settings.noise_std)
    seen = {"clean": (train, 0.0), "noisy": noisy}
    tested = {"clean": test, "noisy": _noisy(test, settings, 1)}
    if (output / DENOISED_FILE).is_file():
        denoised = load_arrays(output / DENOISED_FILE, "train", "test")
        seen["denoised"] = (torch.from_numpy(denoised["train"]).float() / 255, 0.0)
        tested["denoised"] = torch.from_numpy(denoised["test"]).float() / 255
    return seen, tested


def write_denoised(output: Path, settings: Settings) -> None:
    """Train the denoiser on the noisy training digits and write what it makes of them and of the test digits."""
    start = time.process_time()
    clean = _clean_images(DigitSet.load(output / DIGITS_FILE))
    noisy = [_noisy(images, settings, split) for split, images in enumerate(clean)]
    model = train_on(noisy[0], steps=settings.denoiser_steps, seed=0)
    train, test = (to_uint8(denoise(model, images)) for images in noisy)
    with atomic_path(output / DENOISED_FILE) as temporary:
        np.savez_compressed(
            temporary,
            train=train.numpy(),
            test=test.numpy(),
            cpu_s=time.process_time() - start,
            psnr_noisy=psnr_db(noisy[1], clean[1]),
            psnr_denoised=psnr_db(test.float() / 255, clean[1]),
        )


def _clean_images(digits: DigitSet) -> list[torch.Tensor]:
    return [torch.from_numpy(images).float() / 255 for images in (digits.train_images, digits.test_images)]


def _noisy(images: torch.Tensor, settings: Settings, split: int) -> torch.Tensor:
    """The fixed realisation: of split 0, training, or 1, test."""
    return add_noise(images, settings.noise_std, generator(NOISE_SEED, Stream.FIXED_NOISE, split))
