"""From a folder of noisy images to a folder of denoised ones, with any denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed as dist
from torch import nn

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.denoise.batches import Runner, Work
from dinov2_noise.denoise.debias import choose_debias
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.denoise.models import Denoiser, load_denoiser
from dinov2_noise.denoise.network import ApplySettings, Network
from dinov2_noise.denoise.parallel import Processes, joined
from dinov2_noise.denoise.probe import probe
from dinov2_noise.errors import ConfigError, ImageError
from dinov2_noise.files import (
    OutputFolder,
    list_images,
    read_manifest,
    require_outside,
    require_shard,
    source_identity,
)
from dinov2_noise.noise.folder import check_distinct_outputs, copy_labels
from dinov2_noise.noise.pool import check_failures, complete_folder, require_skip_bad
from dinov2_noise.progress import track
from neighbor2neighbor.tiles import MAX_PIXELS


class _Outcome(NamedTuple):
    """Of a process, or of all: what could not be read, images written, pixels per pass in the end."""

    bad: list[ImageError]
    written: int
    max_pixels: int


def apply_denoiser(
    noisy: Path,
    destination: Path,
    *,
    weights: Path | None = None,
    model: nn.Module | None = None,
    model_factory: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    padding: str = "sides",
    max_pixels: int | None = None,
    precision: str = "fp32",
    debias: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    shard: tuple[int, int] = (1, 1),
    skip_unreadable: bool = False,
    skip_bad: int = 0,
    values: ValueRange = DTYPE_RANGE,
    progress: bool = True,
) -> int:
    """Denoise all images of a folder into PNG files of the same relative names; ``labels.txt`` comes along.

    Existing images are left alone, so that an interrupted run continues. Batches depend on the source folder and the
    settings alone: a continued run, or one in several shards, writes the bytes of an uninterrupted one. (Another batch
    size, ``max_pixels`` or device may round a few values the other way.) Under torchrun each process takes its share.

    Args:
        noisy: folder of noisy images.
        destination: folder for the denoised ones, outside ``noisy``.
        weights: file written by ``denoise train``, or published Neighbor2Neighbor weights.
        model: any module instead, mapping ``(B, 3, h, w)`` in [0, 1] to the same shape for h, w multiples of its
            ``side_multiple_px`` (32 where it has none). It is put in eval mode.
        model_factory: ``module:factory`` instead, a function that returns such a module; the current folder is
            importable.
        model_options: its keyword arguments.
        padding: ``sides``, each side to its own multiple; ``square``, the published rule.
        max_pixels: of a pass through the network; default: 2048 squared. Batches that hold more are divided, and only
            then images cut into tiles.
        precision: ``fp32``, or ``bf16`` or ``fp16`` by autocast.
        debias: a noise such as ``gauss255``, or ``auto``: undo the contrast that clipped noise takes away.
        batch_size: at most so many images at once; default: 16 on a GPU, up to 65,536 pixels on a CPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        shard: (i, n), i from 1: do only this part; the folder is complete when no image is missing.
        skip_unreadable: leave out all images that cannot be read instead of failing at the end.
        skip_bad: leave out so many of them; the manifest lists them as ``skipped``.
        values: which stored values are black and white; those that the weights were trained on.
        progress: show a bar.

    Returns:
        Number of images written by this call, in all its processes.

    Raises:
        ConfigError, CheckpointError, MissingFolderError: wrong arguments, weights or folder; or the weights were
            trained on other values for black and white.
        OutputFolderError: ``destination`` holds other results, lies inside ``noisy``, or two images would collide.
        ImageError: more images than allowed cannot be read; raised after all others are done, in the first process.
        DinoNoiseError: the denoiser fails, returns another shape or range, or values that are not finite; an image
            does not fit into memory in the smallest tiles. WriteError: a file cannot be written.
    """
    require_skip_bad(skip_bad)
    noisy = noisy.resolve()
    settings = ApplySettings(padding, MAX_PIXELS if max_pixels is None else max_pixels, precision, batch_size)
    processes = Processes.from_environment()
    part = _part(shard, processes)
    denoiser = load_denoiser(weights, model, model_factory, model_options)
    _require_same_range(denoiser, values)
    network = Network(denoiser, choose_device(device, processes), settings)
    work = _work(noisy, destination, values)
    may_skip = len(work.names) if skip_unreadable else skip_bad
    probe(network, [work.source(name) for name in work.names[:100]], values)
    identity = {**denoiser.identity, **settings.identity(), **_corrected(network, debias, work, may_skip > 0)}
    source = {"source": str(noisy), **source_identity(noisy), **values.parameter()}
    folder = OutputFolder(destination, "denoise apply", {**source, **identity})
    with joined(processes, torch.device("cpu")):
        return _run(work, folder, network, part, may_skip, processes.is_first, progress)


def _part(shard: tuple[int, int], processes: Processes) -> tuple[int, int]:
    """This process's share of a shard's share."""
    require_shard(shard)
    number, count = shard
    return (number - 1) * processes.world_size + processes.rank + 1, count * processes.world_size


def _require_same_range(denoiser: Denoiser, values: ValueRange) -> None:
    if denoiser.values not in (None, values.name):
        raise ConfigError(
            f"{denoiser.label} was trained on images read with range {denoiser.values}, and they would be read with "
            f"{values.name}: add --range {denoiser.values}, or train on {values.name}"
        )


def _work(noisy: Path, destination: Path, values: ValueRange) -> Work:
    names = list_images(noisy, what="noisy folder")
    require_outside(destination, noisy)
    check_distinct_outputs(names)
    return Work(noisy, destination, names, values)


def _corrected(network: Network, debias: str | None, work: Work, skip_unreadable: bool) -> dict[str, Any]:
    """Let the network undo the clipped noise's bias; what that is, for the manifest."""
    if debias is None:
        return {}
    correction = choose_debias(
        debias, work.noisy, network.restored, work.names, skip_unreadable=skip_unreadable, values=work.values
    )
    network.correction = correction
    return correction.identity()


def _run(
    work: Work,
    folder: OutputFolder,
    network: Network,
    part: tuple[int, int],
    may_skip: int,
    is_first: bool,
    progress: bool,
) -> int:
    folder.open()
    missing = work.missing()
    if missing:
        folder.reopen()
    copy_labels(work.noisy, work.destination)
    runner, windows = Runner(work, missing, network), work.windows(part)
    own = sum(len(window) for window in windows)
    done = runner.run(windows)
    for _ in track(done, total=own, description="denoise apply") if progress and is_first else done:
        pass
    outcome = _together(_Outcome(runner.bad, runner.written, network.max_pixels))
    if is_first:  # one process tells of bad images, and completes the folder
        _close(work, folder, outcome, may_skip, bool(missing), network.settings.max_pixels)
    return outcome.written


def _close(
    work: Work, folder: OutputFolder, outcome: _Outcome, may_skip: int, had_missing: bool, max_pixels: int
) -> None:
    check_failures(outcome.bad, total=len(work.names), skip_bad=may_skip)
    if not had_missing and read_manifest(folder.path)["complete"]:
        return  # and what the manifest says of the earlier call stays
    complete_folder(
        folder,
        work.fault,
        work.noisy,
        missing=sorted(work.missing()),
        failures=outcome.bad,
        total=len(work.names),
        skip_bad=may_skip,
        **({} if outcome.max_pixels == max_pixels else {"max_pixels": outcome.max_pixels}),
    )


def _together(own: _Outcome) -> _Outcome:
    """Of all processes; waits for them, so that one image that cannot be read does not stop the others' work."""
    if not dist.is_initialized():
        return own
    outcomes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, own)
    return _Outcome(
        [error for outcome in outcomes for error in outcome.bad],
        sum(outcome.written for outcome in outcomes),
        min(outcome.max_pixels for outcome in outcomes),
    )
