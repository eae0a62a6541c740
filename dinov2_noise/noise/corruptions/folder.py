"""Folder of clean images → one folder per corruption and severity: ``DST/fog/3/val/<class>/<image>.png``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, load_rgb
from dinov2_noise.errors import ConfigError, ImageError
from dinov2_noise.files import (
    OutputFolder,
    is_finished,
    list_images,
    missing_outputs,
    require_outside,
    require_shard,
    source_identity,
)
from dinov2_noise.noise.corruptions.corruption import Corruption
from dinov2_noise.noise.corruptions.image import STANDARD_SIZE_PX, corrupted_uint8, standard_crop
from dinov2_noise.noise.folder import check_distinct_outputs, copy_labels, output_name, save_png
from dinov2_noise.noise.pool import fill_folder, require_skip_bad, worker_count
from dinov2_noise.noise.seeding import DEFAULT_SEED

_SPLIT = "val"
# Images that a worker takes at once, for one cell each; of more cells fewer.
_CHUNK_IMAGES = 16


def corrupt_folder(
    source: Path,
    destination: Path,
    corruptions: Sequence[Corruption],
    *,
    base_seed: int = DEFAULT_SEED,
    size_px: int | None = STANDARD_SIZE_PX,
    workers: int | None = None,
    shard: tuple[int, int] = (1, 1),
    skip_bad: int = 0,
    values: ValueRange = DTYPE_RANGE,
    progress: bool = True,
) -> int:
    """Write every image of ``source`` corrupted, as PNG, once per corruption: ``destination/<label>/<relative path>``.

    Each image is decoded once. What comes out depends on source, seed, size and corruption only, never on the number
    of workers or shards, or on interruptions; existing outputs are kept. ``labels.txt`` of the source's root goes into
    each cell, which is a root of its own: its images equal those of ``…:root=source:corruption=fog/3``.

    Args:
        source: the dataset's root. Of a root with a folder ``val`` only that one is read.
        destination: new or empty folder, or one that the same call has begun.
        corruptions: the cells.
        base_seed: chooses among realisations.
        size_px: side of the centre crop made first (see `standard_crop`); None corrupts the whole image.
        workers: processes; by default one per core.
        shard: (i, n): the i-th of n calls that share the images, i from 1. The manifest is complete once all are.
        skip_bad: leave out so many images that cannot be used; the manifest lists them as ``skipped``.
        values: which stored values are black and white; corruptions work on 8 bit.
        progress: show a bar on standard error.

    Returns:
        The number of images (of the source) completed now.

    Raises:
        ConfigError: no corruption, fewer than one worker, a shard that does not exist, or a negative ``skip_bad``.
        MissingFolderError: ``source`` does not exist or holds no images.
        OutputFolderError: ``destination`` lies in ``source`` or holds other results, or two images would share an
            output.
        ImageError: more images than ``skip_bad`` could not be read or are too small; the manifest then stays
            incomplete.
        WriteError: a file cannot be written.
    """
    workers = worker_count(workers)
    require_skip_bad(skip_bad)
    require_shard(shard)
    if not corruptions:
        raise ConfigError("nothing to corrupt: no corruption is named")
    source, destination = source.resolve(), destination.resolve()
    require_outside(destination, source)
    names = _list_source(source)
    check_distinct_outputs(names)
    job = _Job(source, destination, tuple(corruptions), base_seed, size_px, values)
    output = OutputFolder(destination, command="corrupt", parameters=job.parameters())
    output.open()
    for corruption in corruptions:
        copy_labels(source, destination / corruption.label)
    return fill_folder(
        output,
        job,
        names,
        shard=shard,
        workers=workers,
        skip_bad=skip_bad,
        description="corrupt" if progress else None,
        chunk_images=max(1, _CHUNK_IMAGES // len(corruptions)),
    )


def parse_size(text: str) -> int | None:
    """``224`` as 224, ``full`` as None.

    Raises:
        ConfigError: neither a number of pixels above 0 nor ``full``.
    """
    if text == "full":
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"size {text!r}: write the side in pixels, such as 224, or full")
    return int(text)


@dataclass(frozen=True)
class _Job:
    """Makes all cells of one image; picklable, hence usable in worker processes however they are started."""

    source: Path
    destination: Path
    corruptions: tuple[Corruption, ...]
    base_seed: int
    size_px: int | None
    values: ValueRange = DTYPE_RANGE

    def parameters(self) -> dict[str, object]:
        """What decides the content of the folder."""
        return {
            "source": str(self.source),
            **source_identity(self.source),
            "corruptions": [corruption.label for corruption in self.corruptions],
            "seed": self.base_seed,
            "size": "full" if self.size_px is None else self.size_px,
            "format": "png",
            **self.values.parameter(),
        }

    def output(self, corruption: Corruption, relative_path: str) -> Path:
        return self.destination / corruption.label / output_name(relative_path)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that lack an output in any cell, in order; one walk per cell."""
        lacking: set[str] = set()
        for corruption in self.corruptions:
            lacking.update(missing_outputs(names, self.destination / corruption.label, output_name))
            if len(lacking) == len(names):
                break
        return [name for name in names if name in lacking]

    def __call__(self, relative_path: str) -> ImageError | None:
        """None, or why the image could not be used."""
        missing = [item for item in self.corruptions if not is_finished(self.output(item, relative_path))]
        try:
            image = load_rgb(self.source / relative_path, self.values)
            pixels = np.asarray(image if self.size_px is None else standard_crop(image, self.size_px))
            for corruption in missing:
                corrupted = corrupted_uint8(pixels, corruption, relative_path=relative_path, base_seed=self.base_seed)
                save_png(corrupted, self.output(corruption, relative_path))
        except ImageError as failure:
            return ImageError(self.source / relative_path, failure.cause)
        return None


def _list_source(source: Path) -> list[str]:
    split = source / _SPLIT
    if not split.is_dir():
        return list_images(source, what="source folder")
    return [f"{_SPLIT}/{name}" for name in list_images(split, what="source folder")]
