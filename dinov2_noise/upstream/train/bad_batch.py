"""The batch of a loss that is not finite: what is odd about it, which images it holds, and a file to look into."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2_noise import data
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.files import atomic_path
from dinov2_noise.upstream.runtime import Run


@dataclass(frozen=True)
class Step:
    """One training step of one process; ``images`` is the collated batch, by reference."""

    iteration: int
    stage: str
    images: Mapping[str, Any]
    rank: int
    world_size: int


def crops_not_finite(images: Mapping[str, Any]) -> int:
    """Crops with a NaN or infinite pixel, of all kinds."""
    crops = [value for key, value in images.items() if key.endswith(("crops", "crops_anchor"))]
    return sum(int((~torch.isfinite(crop).flatten(1).all(dim=1)).sum()) for crop in crops)


def duplicate_share(images: Mapping[str, Any]) -> float:
    """Share of images whose first global crop is, pixel by pixel, that of another image of the batch."""
    crops: Tensor = images["collated_global_crops"]
    first = crops[: len(crops) // 2].flatten(1).float()
    _, counts = torch.unique(first, dim=0, return_counts=True)
    return float(counts[counts > 1].sum()) / len(first)


def draws(run: Run, iteration: int, sample_count: int, rank: int = 0, world_size: int = 1) -> list[Draw]:
    """What the sampler draws at an iteration for one process: image indices, in the order of the batch.

    Args:
        run: seed, stages and batch size. sample_count: images in the training set.
    """
    sampler = CurriculumSampler(
        sample_count=sample_count,
        batch_size=run.cfg.train.batch_size_per_gpu,
        curriculum=run.curriculum,
        seed=run.seed,
        start_iteration=iteration,
        rank=rank,
        world_size=world_size,
    )
    return list(itertools.islice(sampler, run.cfg.train.batch_size_per_gpu))


def image_list(run: Run, step: Step) -> dict[str, list[Any]]:
    """Indices and relative paths of the batch's images; empty if the training set is not one of ours to read."""
    dataset_str = run.cfg.train.dataset_path
    if dataset_str.split(":")[0] not in data.DATASETS:
        return {}
    try:
        dataset: Any = data.make(dataset_str, knows_epoch=True)
        drawn = draws(run, step.iteration, len(dataset), step.rank, step.world_size)
        return {
            "image_indices": [draw.index for draw in drawn],
            "image_paths": [dataset.relative_path(draw.index) for draw in drawn],
        }
    except (DinoNoiseError, OSError):  # gone since the run began: the crops themselves are in the file
        return {}


def dump(run: Run, step: Step, own_losses: Mapping[str, float]) -> Path:
    """Write ``bad_batch/iteration_<n>_rank_<r>.pt`` in the output folder, for ``torch.load(…, weights_only=True)``.

    It holds the batch's tensors and numbers under their names, ``iteration``, ``stage_name``, ``rank``, ``losses`` of
    this process's batch, and, where the data set is one of ours, ``image_indices`` and ``image_paths`` below its root.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path = Path(run.cfg.train.output_dir) / "bad_batch" / f"iteration_{step.iteration}_rank_{step.rank}.pt"
    batch = {key: value for key, value in step.images.items() if isinstance(value, (Tensor, int, float, str))}
    facts = {
        "iteration": step.iteration,
        "stage_name": step.stage,
        "rank": step.rank,
        "losses": dict(own_losses),
        **image_list(run, step),
    }
    with atomic_path(path) as temporary:
        torch.save(batch | facts, temporary)
    return path
