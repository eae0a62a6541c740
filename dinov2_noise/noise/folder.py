"""Folder of clean images → folder of noisy ones, with the manifest that tells how it was made."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dinov2_noise.errors import ConfigError, DinoNoiseError, ImageError, MissingFolderError, OutputFolderError
from dinov2_noise.files import OutputFolder, atomic_path, list_images
from dinov2_noise.noise.decode import load_rgb
from dinov2_noise.noise.models import NoiseModel, parse
from dinov2_noise.noise.seeding import DEFAULT_SEED, noisy_uint8
from dinov2_noise.progress import track

LABELS_NAME = "labels.txt"
_CHUNK_IMAGES = 16


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
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    source, destination = source.resolve(), destination.resolve()
    if destination.is_relative_to(source):
        raise OutputFolderError(f"output folder {destination} lies in the source {source}: choose one outside of it")
    names = list_images(source, what="source folder")
    _check_distinct_outputs(names)
    parameters = {"source": str(source), "noise": model.name, "seed": base_seed, "format": "png"}
    output = OutputFolder(destination, command="add-noise", parameters=parameters)
    output.open()
    _copy_labels(source, destination)
    job = _Job(source, destination, model, base_seed)
    pending = _without_output(names, destination)
    if pending:
        output.reopen()
    failures = _run(job, pending, workers=workers, progress=progress)
    if failures:
        raise _summary(failures, total=len(names))
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
        with atomic_path(self.destination / output_name(relative_path)) as temporary:
            # Level 1 with Huffman coding only: noise does not compress, and Pillow's default is five times slower.
            Image.fromarray(noisy).save(temporary, format="PNG", compress_level=1, compress_type=2)
        return None


def _run(job: _Job, names: Sequence[str], *, workers: int, progress: bool) -> list[ImageError]:
    with _mapping(min(workers, len(names))) as mapping:
        # The processes start here, before the bar starts its thread: forking a process with threads is unsafe.
        results: Iterable[ImageError | None] = mapping(job, names)
        if progress and names:
            results = track(results, total=len(names), description=f"add-noise {job.noise.name}")
        return [failure for failure in results if failure is not None]


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[[_Job, Sequence[str]], Iterable[ImageError | None]]]:
    """``map``, or the same over processes; leaving the block early drops what has not begun."""
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, initializer=_ignore_interrupts)
    try:
        yield partial(pool.map, chunksize=_CHUNK_IMAGES)
    except BrokenProcessPool as cause:
        raise DinoNoiseError(
            "a worker process was killed, most often for lack of memory: run the same command with fewer workers "
            "(finished images are kept)"
        ) from cause
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent alone acts on it, after the images at work are finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_distinct_outputs(names: Sequence[str]) -> None:
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


def _copy_labels(source: Path, destination: Path) -> None:
    if (source / LABELS_NAME).is_file():
        with atomic_path(destination / LABELS_NAME) as temporary:
            shutil.copyfile(source / LABELS_NAME, temporary)


def _summary(failures: Sequence[ImageError], *, total: int) -> ImageError:
    others = "".join(f"\n  {failure.path}: {failure.cause}" for failure in failures[1:5])
    more = f"\n  … and {len(failures) - 5} more" if len(failures) > 5 else ""
    first = failures[0]
    return ImageError(
        first.path,
        f"{first.cause} ({len(failures)} of {total} images failed){others}{more}\n"
        "Repair or remove them and run the same command again: finished images are kept.",
    )
