"""The order of work on a folder: which images go through the network together, read ahead and written behind."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange, image_size
from dinov2_noise.denoise.images import read_rgb
from dinov2_noise.denoise.network import Network
from dinov2_noise.errors import ImageError
from dinov2_noise.files import atomic_path, missing_outputs
from dinov2_noise.noise.folder import output_name

_WINDOW_IMAGES = 128  # images of equal padded size are looked for among so many neighbours
_LEAST_WINDOWS = 32  # in a small folder too, so that there is a part for each of many shards
_THREADS = 16
_BATCHES_AHEAD = 2

_Size = tuple[int, int] | None  # padded height and width; None: the file cannot be read


@dataclass(frozen=True)
class Work:
    """The images of a folder and where their denoised twins go.

    Attributes:
        noisy: source folder.
        destination: of the denoised images.
        names: relative paths in ``noisy``, sorted.
        values: which stored values are black and white.
    """

    noisy: Path
    destination: Path
    names: Sequence[str]
    values: ValueRange = DTYPE_RANGE

    def source(self, name: str) -> Path:
        """The noisy image."""
        return self.noisy / name

    def read(self, name: str) -> Tensor:
        """The noisy image, uint8 ``(3, H, W)``."""
        return read_rgb(self.source(name), self.values)

    def fault(self, name: str) -> ImageError | None:
        """Why the noisy image cannot be read, if so."""
        try:
            self.read(name)
        except ImageError as failure:
            return failure
        return None

    def target(self, name: str) -> Path:
        """Its denoised twin."""
        return self.destination / output_name(name)

    def missing(self) -> set[str]:
        """Names without a denoised twin."""
        return set(missing_outputs(self.names, self.destination, output_name))

    def windows(self, shard: tuple[int, int]) -> list[Sequence[str]]:
        """Runs of neighbouring images, from which batches are made: those of shard (i, n), i from 1.

        They depend on the folder alone, so that however many shards there are, the batches are the same.
        """
        size = min(_WINDOW_IMAGES, math.ceil(len(self.names) / _LEAST_WINDOWS))
        windows = [self.names[start : start + size] for start in range(0, len(self.names), size)]
        return windows[shard[0] - 1 :: shard[1]]


class _Loaded(NamedTuple):
    """A padded image, uint8 ``(3, h, w)``, and the height and width it had."""

    padded: Tensor
    height: int
    width: int


class _Batch(NamedTuple):
    """Images that go through the network together; ``loading`` is empty where all have their twins."""

    names: Sequence[str]
    loading: Sequence[Future[_Loaded]]


class _Finished(NamedTuple):
    """A batch of which the files are being written."""

    names: Sequence[str]
    writing: Sequence[Future[None]]


class Runner:
    """Denoises windows of images; counts what it wrote, and collects the images it could not read.

    Args:
        work: the folders.
        missing: names that have no twin yet.
        network: the denoiser.

    Attributes:
        written: images written.
        bad: why images could not be read.
    """

    def __init__(self, work: Work, missing: set[str], network: Network) -> None:
        self.work = work
        self.missing = missing
        self.network = network
        self.written = 0
        self.bad: list[ImageError] = []

    def run(self, windows: Sequence[Sequence[str]]) -> Iterator[str]:
        """Yield each image that is written, was there before, or is bad.

        While the network works on one batch, threads read the next ones and write the ones before.

        Raises:
            DinoNoiseError: see `Network.denoise`. WriteError: a file cannot be written.
        """
        pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
        finished: deque[_Finished] = deque()
        try:
            for batch in self._load_ahead(pool, windows):
                finished.append(_Finished(batch.names, self._denoise(pool, batch)))
                while len(finished) > _BATCHES_AHEAD:
                    yield from self._wait(finished.popleft())
            while finished:
                yield from self._wait(finished.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _load_ahead(self, pool: ThreadPoolExecutor, windows: Sequence[Sequence[str]]) -> Iterator[_Batch]:
        waiting: deque[_Batch] = deque()
        for window, sizes in self._size_ahead(pool, windows):
            for names, size in self._batches(window, sizes):
                needed = any(name in self.missing for name in names)
                loading = [pool.submit(self._load, name, size) for name in names] if needed else []
                waiting.append(_Batch(names, loading))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft()
        yield from waiting

    def _size_ahead(
        self, pool: ThreadPoolExecutor, windows: Sequence[Sequence[str]]
    ) -> Iterator[tuple[Sequence[str], list[Future[_Size]]]]:
        """Each window with the sizes of its images, of which those of the next are read already; none where done."""
        waiting: deque[tuple[Sequence[str], list[Future[_Size]]]] = deque()
        for window in windows:
            needed = not self.missing.isdisjoint(window)
            waiting.append((window, [pool.submit(self._size, name) for name in window] if needed else []))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting

    def _batches(self, window: Sequence[str], sizes: Sequence[Future[_Size]]) -> list[tuple[Sequence[str], _Size]]:
        """Images of equal padded size, as many as go together.

        A batch of which one image is missing is computed as a whole: what a convolution returns for one image may
        depend, in the last bit, on the batch it is in.
        """
        if not sizes:
            return [(window, None)]
        by_size: dict[_Size, list[str]] = {}
        for name, size in zip(window, sizes, strict=True):
            by_size.setdefault(size.result(), []).append(name)
        batches: list[tuple[Sequence[str], _Size]] = []
        for padded, names in by_size.items():
            limit = len(names) if padded is None else self.network.batch_limit(padded)
            batches += [(names[start : start + limit], padded) for start in range(0, len(names), limit)]
        return batches

    def _size(self, name: str) -> _Size:
        """None for an unreadable file, which is reported when it is loaded."""
        try:
            return self.network.padded_size(image_size(self.work.source(name)))
        except ImageError:
            return None

    def _load(self, name: str, size: _Size) -> _Loaded:
        image = self.work.read(name)
        padded = self.network.pad(image)
        if padded.shape[-2:] != size:
            raise ImageError(self.work.source(name), "its pixels are of another size than its header says")
        return _Loaded(padded, *image.shape[-2:])

    def _denoise(self, pool: ThreadPoolExecutor, batch: _Batch) -> list[Future[None]]:
        """Begin to write what is missing."""
        loaded: dict[str, _Loaded] = {}
        for name, future in zip(batch.names, batch.loading, strict=bool(batch.loading)):
            try:
                loaded[name] = future.result()
            except ImageError as error:
                self.bad.append(error)
        if not loaded:
            return []
        outputs = self.network.denoise(
            [image.padded for image in loaded.values()], [self.work.source(name) for name in loaded]
        )
        return [
            pool.submit(_write, output[: image.height, : image.width].numpy(), self.work.target(name))
            for (name, image), output in zip(loaded.items(), outputs, strict=True)
            if name in self.missing
        ]

    def _wait(self, finished: _Finished) -> Sequence[str]:
        for future in finished.writing:
            future.result()
            self.written += 1
        return finished.names


def _write(pixels: NDArray[np.uint8], path: Path) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, compress_level=1)  # denoised images compress well, unlike noisy ones
