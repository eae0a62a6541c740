"""From a folder of noisy images to a folder of denoised ones, with any denoiser."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from dinov2_noise.denoise.device import choose_device
from dinov2_noise.denoise.images import read_rgb
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError, ImageError
from dinov2_noise.files import OutputFolder, atomic_path, list_images, require_outside, source_identity
from dinov2_noise.noise.decode import image_size
from dinov2_noise.noise.folder import check_distinct_outputs, copy_labels, output_name
from dinov2_noise.noise.pool import failure_summary
from dinov2_noise.progress import track
from neighbor2neighbor import CheckpointMismatchError, denoise_batch, load_checkpoint, to_uint8

_WINDOW_BATCHES = 4  # images of equal size are looked for among so many batches' worth of neighbours


class _Source(NamedTuple):
    """A noisy image and where its denoised twin goes."""

    path: Path
    target: Path


def apply_denoiser(
    noisy: Path,
    destination: Path,
    *,
    weights: Path | None = None,
    model: nn.Module | None = None,
    batch_size: int = 16,
    device: str = "auto",
    shard: tuple[int, int] = (0, 1),
    skip_unreadable: bool = False,
    progress: bool = True,
) -> int:
    """Denoise all images of a folder into PNG files of the same relative names; ``labels.txt`` comes along.

    Existing images are left alone, so that an interrupted run continues. Batches hold images of equal size and depend
    on the source folder and ``batch_size`` alone: a continued run writes the bytes of an uninterrupted one. (Another
    batch size or device may round a few values the other way.)

    Args:
        noisy: folder of noisy images.
        destination: folder for the denoised ones, outside ``noisy``.
        weights: file written by ``denoise train``, or published Neighbor2Neighbor weights.
        model: any module instead, mapping ``(B, 3, h, w)`` in [0, 1] to the same shape for h, w multiples of 32. It is
            put in eval mode; the manifest knows it by its class name only.
        batch_size: at most so many images at once.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        shard: ``(index from 0, count)``: do only this part; the folder is complete when no image is missing. (After
            shards that skipped images, run once without shards.)
        skip_unreadable: leave out images that cannot be read instead of failing at the end. progress: show a bar.

    Returns:
        Number of images written by this call.

    Raises:
        ConfigError, CheckpointError, MissingFolderError: wrong arguments, weights or folder.
        OutputFolderError: ``destination`` holds other results, lies inside ``noisy``, or two images would collide.
        ImageError: images cannot be read; raised after all others are done.
        DinoNoiseError: the denoiser returns another shape, or values that are not finite.
    """
    _check_ranges(batch_size, shard)
    chosen = choose_device(device)
    denoiser, identity = _denoiser(weights, model)
    sources = _sources(noisy, destination)
    source = {"source": str(noisy.resolve()), **source_identity(noisy)}
    folder = OutputFolder(destination, "denoise apply", {**source, **identity})
    folder.open()
    if not all(source.target.is_file() for source in sources):
        folder.reopen()
    copy_labels(noisy, destination)
    windows = _windows(sources, batch_size, shard)
    run = _Run(denoiser.to(chosen).eval(), chosen, batch_size)
    own = sum(len(window) for window in windows)
    done = run.images(windows)
    for _ in track(done, total=own, description="denoise apply") if progress else done:
        pass
    if run.bad and not skip_unreadable:
        raise failure_summary(run.bad, total=own)
    skipped = {error.path for error in run.bad}
    if all(source.target.is_file() or source.path in skipped for source in sources):
        folder.close(images=len(sources) - len(skipped), skipped=sorted(map(str, skipped)))
    return run.written


def _check_ranges(batch_size: int, shard: tuple[int, int]) -> None:
    if batch_size < 1 or not 0 <= shard[0] < shard[1]:
        raise ConfigError(
            f"batch_size must be at least 1, and shard (index, count) with 0 <= index < count, got {shard}"
        )


def _windows(sources: Sequence[_Source], batch_size: int, shard: tuple[int, int]) -> list[Sequence[_Source]]:
    """Runs of neighbouring images, from which batches are made; those of this shard."""
    window = _WINDOW_BATCHES * batch_size
    return [sources[start : start + window] for start in range(0, len(sources), window)][shard[0] :: shard[1]]


class _Run:
    """The denoiser at work: counts what it wrote, collects the images it could not read."""

    def __init__(self, model: nn.Module, device: torch.device, batch_size: int) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.written = 0
        self.bad: list[ImageError] = []

    def images(self, windows: Iterable[Sequence[_Source]]) -> Iterator[_Source]:
        """Do all windows, yielding each image that is done, was there before, or is bad."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for window in windows:
                if all(source.target.is_file() for source in window):
                    yield from window
                    continue
                for batch, loading in _load_ahead(pool, self._batches(pool, window)):
                    self._denoise(pool, batch, loading)
                    yield from batch

    def _batches(self, pool: ThreadPoolExecutor, window: Sequence[_Source]) -> list[list[_Source]]:
        """Batches of equal size in which at least one image is missing.

        Such a batch is computed as a whole: what a convolution returns for one image may depend, in the last bit, on
        the batch it is in.
        """
        by_size: dict[tuple[int, int] | None, list[_Source]] = {}
        for source, size in zip(window, pool.map(_size_or_none, (source.path for source in window)), strict=True):
            by_size.setdefault(size, []).append(source)
        batches = [
            group[start : start + self.batch_size]
            for group in by_size.values()
            for start in range(0, len(group), self.batch_size)
        ]
        return [batch for batch in batches if not all(source.target.is_file() for source in batch)]

    def _denoise(self, pool: ThreadPoolExecutor, batch: Sequence[_Source], loading: Sequence[Future[Tensor]]) -> None:
        images, readable = [], []
        for source, future in zip(batch, loading, strict=True):
            try:
                images.append(future.result())
                readable.append(source)
            except ImageError as error:
                self.bad.append(error)
        if not images:
            return
        try:
            outputs = to_uint8(denoise_batch(self.model, torch.stack(images).to(self.device))).cpu()
        except ValueError as cause:
            raise DinoNoiseError(f"cannot denoise {readable[0].path}: {cause}") from cause
        missing = [
            (source, output) for source, output in zip(readable, outputs, strict=True) if not source.target.exists()
        ]
        self.written += sum(pool.map(_write, missing))


def _denoiser(weights: Path | None, model: nn.Module | None) -> tuple[nn.Module, dict[str, str]]:
    """The network, and what tells it from others in the manifest."""
    if (weights is None) == (model is None):
        raise ConfigError("denoise apply needs either weights or a model, not both and not none")
    if model is not None:
        return model, {"model": f"{type(model).__module__}.{type(model).__qualname__}"}
    assert weights is not None
    try:
        network = load_checkpoint(weights)
    except (FileNotFoundError, CheckpointMismatchError) as cause:
        raise CheckpointError(str(cause)) from cause
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    # Channels-last convolutions are faster on CPU and GPU alike.
    return network.to(memory_format=torch.channels_last), {"weights_sha256": digest}  # type: ignore[call-overload]


def _sources(noisy: Path, destination: Path) -> list[_Source]:
    names = list_images(noisy, what="noisy folder")
    require_outside(destination, noisy)
    check_distinct_outputs(names)
    return [_Source(noisy / name, destination / output_name(name)) for name in names]


def _load_ahead(
    pool: ThreadPoolExecutor, batches: Iterable[list[_Source]]
) -> Iterator[tuple[list[_Source], list[Future[Tensor]]]]:
    """Each batch with its images, which load while the one before is computed."""
    waiting: tuple[list[_Source], list[Future[Tensor]]] | None = None
    for batch in batches:
        loading = [pool.submit(_read_float, source.path) for source in batch]
        if waiting is not None:
            yield waiting
        waiting = batch, loading
    if waiting is not None:
        yield waiting


def _size_or_none(path: Path) -> tuple[int, int] | None:
    """The size; none for an unreadable file, which then fails, and is reported, when it is loaded."""
    try:
        return image_size(path)
    except ImageError:
        return None


def _read_float(path: Path) -> Tensor:
    return read_rgb(path).float() / 255


def _write(item: tuple[_Source, Tensor]) -> int:
    source, output = item
    with atomic_path(source.target) as temporary:
        Image.fromarray(output.permute(1, 2, 0).numpy()).save(temporary, compress_level=1)
    return 1
