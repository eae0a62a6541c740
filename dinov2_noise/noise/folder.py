"""Folder of clean images → folder of noisy ones, with the manifest that tells how it was made."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, load_pixels
from dinov2_noise.errors import ImageError, OutputFolderError
from dinov2_noise.files import OutputFolder, atomic_path, list_images, missing_outputs, require_outside, require_shard
from dinov2_noise.noise.encoding import check_format, encode
from dinov2_noise.noise.models import NoiseModel
from dinov2_noise.noise.pool import fill_folder, require_skip_bad, worker_count
from dinov2_noise.noise.registry import parse
from dinov2_noise.noise.seeding import DEFAULT_SEED, noisy_uint8

LABELS_NAME = "labels.txt"


def add_noise(
    source: Path,
    destination: Path,
    *,
    noise: str | NoiseModel,
    base_seed: int = DEFAULT_SEED,
    workers: int | None = None,
    image_format: str = "png",
    shard: tuple[int, int] = (1, 1),
    values: ValueRange = DTYPE_RANGE,
    skip_bad: int = 0,
    progress: bool = True,
) -> int:
    """Write a noisy image for every image of ``source`` under the same relative path in ``destination``.

    The result depends on source, noise, seed, range and format only, never on the number of workers or shards, or on
    interruptions; existing outputs are kept. ``labels.txt`` of the source's root comes along. One bad image does not
    stop the others. Images of more than 8 bits get their noise at full depth and are stored in 8.

    Args:
        source: the dataset's root. Seeds come from paths relative to it: a subfolder as root gives other noise.
        destination: new or empty folder, or one that the same call has begun.
        noise: a model or its name, such as ``gauss255``.
        base_seed: chooses among realisations.
        workers: processes; by default one per core.
        image_format: ``png`` or ``webp``, both without loss.
        shard: (i, n): the i-th of n calls that share the images, i from 1. The manifest is complete once all are.
        values: which stored values are black and white.
        skip_bad: leave out so many images that cannot be read; the manifest lists them as ``skipped``.
        progress: show a bar on standard error.

    Returns:
        The number of images written now.

    Raises:
        NoiseNameError: unknown noise.
        ConfigError: fewer than one worker, a shard that does not exist, a lossy format, or a negative ``skip_bad``.
        MissingFolderError: ``source`` does not exist or holds no images.
        OutputFolderError: ``destination`` lies in ``source`` or holds other results, or two images would share an
            output.
        ImageError: more images than ``skip_bad`` could not be read; the manifest then stays incomplete.
        WriteError: a file cannot be written.
    """
    model = parse(noise) if isinstance(noise, str) else noise
    workers, image_format = worker_count(workers), check_format(image_format)
    require_skip_bad(skip_bad)
    require_shard(shard)
    source, destination = source.resolve(), destination.resolve()
    require_outside(destination, source)
    names = list_images(source, what="source folder")
    check_distinct_outputs(names)
    job = _Job(source, destination, model, base_seed, image_format, values)
    output = OutputFolder(destination, command="add-noise", parameters=job.parameters())
    output.open()
    copy_labels(source, destination)
    description = f"add-noise {model.name}" if progress else None
    return fill_folder(output, job, names, shard=shard, workers=workers, skip_bad=skip_bad, description=description)


def output_name(relative_path: str, image_format: str = "png") -> str:
    """Where in a noisy (or denoised) folder the image ``relative_path`` goes: the same place, as ``.png``."""
    return f"{posixpath.splitext(relative_path)[0]}.{image_format}"


@dataclass(frozen=True)
class _Job:
    """Makes one image; picklable, hence usable in worker processes however they are started."""

    source: Path
    destination: Path
    noise: NoiseModel
    base_seed: int
    image_format: str
    values: ValueRange

    def parameters(self) -> dict[str, object]:
        """What decides the content of the folder."""
        return {
            "source": str(self.source),
            "noise": self.noise.name,
            "seed": self.base_seed,
            "format": self.image_format,
            **self.values.parameter(),
        }

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that lack an output, in order."""
        return missing_outputs(names, self.destination, partial(output_name, image_format=self.image_format))

    def __call__(self, relative_path: str) -> ImageError | None:
        """None, or why the image could not be read."""
        try:
            clean = load_pixels(self.source / relative_path, self.values)
        except ImageError as failure:
            return failure
        noisy = noisy_uint8(clean, self.noise, relative_path=relative_path, base_seed=self.base_seed)
        with atomic_path(self.destination / output_name(relative_path, self.image_format)) as temporary:
            temporary.write_bytes(encode(noisy, self.image_format))
        return None


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write (H, W, 3) pixels of a picture rather than of noise, atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        # Level 1 with Huffman coding only: five times as fast as Pillow's default.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1, compress_type=2)


def check_distinct_outputs(names: Sequence[str]) -> None:
    """Check that no two images differ in their suffix alone.

    Raises:
        OutputFolderError: two do.
    """
    hashes = np.fromiter((hash(output_name(name)) for name in names), np.int64, len(names))
    if len(np.unique(hashes)) == len(names):  # of a million names a tenth of the memory of a dictionary
        return
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(output_name(name), name)
        if other != name:
            raise OutputFolderError(f"{other} and {name} would both become {output_name(name)}: rename one of them")


def copy_labels(source: Path, destination: Path) -> None:
    """Copy ``labels.txt`` of the source's root, if it has one."""
    if (source / LABELS_NAME).is_file():
        with atomic_path(destination / LABELS_NAME) as temporary:
            shutil.copyfile(source / LABELS_NAME, temporary)
