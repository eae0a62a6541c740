"""Folder of clean images → folder of noisy ones, with the manifest that tells how it was made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.decoding import load_rgb
from dinov2_noise.errors import DinoNoiseError, ImageError, MissingFolderError, OutputFolderError
from dinov2_noise.files import OutputFolder, atomic_path, list_images, require_outside
from dinov2_noise.noise.models import NoiseModel, parse
from dinov2_noise.noise.pool import failure_summary, run_jobs, worker_count
from dinov2_noise.noise.seeding import DEFAULT_SEED, noisy_uint8

LABELS_NAME = "labels.txt"


def add_noise(
    source: Path,
    destination: Path,
    *,
    noise: str | NoiseModel,
    base_seed: int = DEFAULT_SEED,
    workers: int | None = None,
    progress: bool = True,
) -> int:
    """Write a noisy PNG for every image of ``source`` under the same relative path in ``destination``.

    The result depends on source, noise and seed only, never on the number of workers or on interruptions; existing
    outputs are kept. ``labels.txt`` of the source's root comes along. One bad image does not stop the others.

    Args:
        source: the dataset's root. Seeds come from paths relative to it: a subfolder as root gives other noise.
        destination: new or empty folder, or one that the same call has begun.
        noise: a model or its name, such as ``gauss255``.
        base_seed: chooses among realisations.
        workers: processes; by default one per core.
        progress: show a bar on standard error.

    Returns:
        The number of images written now.

    Raises:
        NoiseNameError, ConfigError: unknown noise, or fewer than one worker.
        MissingFolderError: ``source`` does not exist or holds no images.
        OutputFolderError: ``destination`` lies in ``source`` or holds other results, or two images would share an
            output.
        ImageError: images could not be read; the manifest then stays incomplete.
    """
    model = parse(noise) if isinstance(noise, str) else noise
    workers = worker_count(workers)
    source, destination = source.resolve(), destination.resolve()
    require_outside(destination, source)
    names = list_images(source, what="source folder")
    check_distinct_outputs(names)
    parameters = {"source": str(source), "noise": model.name, "seed": base_seed, "format": "png"}
    output = OutputFolder(destination, command="add-noise", parameters=parameters)
    output.open()
    copy_labels(source, destination)
    job = _Job(source, destination, model, base_seed)
    pending = _without_output(names, destination)
    if pending:
        output.reopen()
    description = f"add-noise {model.name}" if progress else None
    failures = run_jobs(job, pending, workers=workers, description=description)
    if failures:
        raise failure_summary(failures, total=len(names))
    output.close(images=len(names))
    return len(pending)


def output_name(relative_path: str) -> str:
    """Where in a noisy (or denoised) folder the image ``relative_path`` goes: the same place, as ``.png``."""
    return str(PurePosixPath(relative_path).with_suffix(".png"))


@dataclass(frozen=True)
class _Job:
    """Makes one image; picklable, hence usable in worker processes however they are started."""

    source: Path
    destination: Path
    noise: NoiseModel
    base_seed: int

    def __call__(self, relative_path: str) -> ImageError | None:
        """None, or why the image could not be read."""
        try:
            clean = np.asarray(load_rgb(self.source / relative_path))
        except ImageError as failure:
            return failure
        noisy = noisy_uint8(clean, self.noise, relative_path=relative_path, base_seed=self.base_seed)
        save_png(noisy, self.destination / output_name(relative_path))
        return None


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write (H, W, 3) pixels, atomically.

    Raises:
        DinoNoiseError: the file cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            # Level 1 with Huffman coding only: noise does not compress, and Pillow's default is five times slower.
            Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1, compress_type=2)
    except OSError as cause:
        raise DinoNoiseError(
            f"cannot write {path}: {cause}. Mend that and run the same command again: finished images are kept"
        ) from cause


def check_distinct_outputs(names: Sequence[str]) -> None:
    """Check that no two images differ in their suffix alone.

    Raises:
        OutputFolderError: two do.
    """
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(output_name(name), name)
        if other != name:
            raise OutputFolderError(f"{other} and {name} would both become {output_name(name)}: rename one of them")


def _without_output(names: Sequence[str], destination: Path) -> list[str]:
    try:
        done = set(list_images(destination))
    except MissingFolderError:
        return list(names)
    return [name for name in names if output_name(name) not in done]


def copy_labels(source: Path, destination: Path) -> None:
    """Copy ``labels.txt`` of the source's root, if it has one."""
    if (source / LABELS_NAME).is_file():
        with atomic_path(destination / LABELS_NAME) as temporary:
            shutil.copyfile(source / LABELS_NAME, temporary)
