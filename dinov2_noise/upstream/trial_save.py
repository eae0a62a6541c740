"""A checkpoint written and deleted before the first step, so that a full disk is found in the first minute."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.checkpoint_files import free_bytes, on_first_rank, shown, write_through

logger = logging.getLogger("dinov2")

# AdamW keeps two float32 tensors per trained parameter; each tensor adds a header and an index entry to the file.
_OPTIMIZER_BYTES, _BYTES_PER_ENTRY = 8, 1000


def trial_save(folder: Path, weights: Mapping[str, Tensor], run: runtime.Run, first_iteration: int) -> None:
    """Write a file as large as the checkpoints to come, and delete it; a collective operation.

    Args:
        folder: where checkpoints will be written.
        weights: the model in full; needed on rank 0 only.

    Raises:
        CheckpointError: the file cannot be written; on all ranks.
    """
    n_files = _files_at_once(run, first_iteration)
    if n_files == 0:
        return
    trained = [tensor for name, tensor in weights.items() if name.startswith("student.")]
    optimizer = sum(_OPTIMIZER_BYTES * tensor.numel() + 2 * _BYTES_PER_ENTRY for tensor in trained)
    size = optimizer + sum(tensor.numel() * tensor.element_size() + _BYTES_PER_ENTRY for tensor in weights.values())
    path = folder / f".trial_save.{os.getpid()}.partial.pth"
    with on_first_rank(_refusal(folder, size, n_files)) as is_first:
        if is_first:
            _write_and_delete(path, {"model": dict(weights)}, optimizer)
            _warn_of_later(folder, size, n_files)


def _write_and_delete(path: Path, content: dict[str, Any], more_bytes: int) -> None:
    try:
        write_through(content, path, random_bytes=more_bytes)
    finally:
        path.unlink(missing_ok=True)


def _files_at_once(run: runtime.Run, first_iteration: int) -> int:
    """Upstream saves every three epochs, keeps the last three and ``model_final``, and deletes after it has written."""
    length = run.curriculum.epoch_length_iterations
    total, period = run.curriculum.total_iterations, 3 * length
    if first_iteration >= total:
        return 0
    return min(total // period - first_iteration // period + 1, 4)


def _refusal(folder: Path, size: int, n_files: int) -> str:
    return (
        f"no checkpoint can be written into {folder}, tried before the first step: one needs {shown(size)}, "
        f"{shown(free_bytes(folder))} are free there, and {_demand(size, n_files)}. Make room or choose another "
        "--output-dir. The system says"
    )


def _demand(size: int, n_files: int) -> str:
    if n_files == 1:
        return "this run keeps one, model_final"
    return f"this run needs room for {n_files}, {shown(n_files * size)} (DINOv2 keeps the last 3 and model_final)"


def _warn_of_later(folder: Path, size: int, n_files: int) -> None:
    free = free_bytes(folder)
    if free < n_files * size:
        logger.warning(
            "dinov2-noise: %s are free in %s, but %s: training will stop at a later save unless room is made",
            shown(free),
            folder,
            _demand(size, n_files),
        )
    else:
        logger.info("dinov2-noise: a trial checkpoint of %s was written and deleted", shown(size))
