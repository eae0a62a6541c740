"""Batches as upstream's training makes them, for scripts that tests run in processes of their own."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch
from dinov2.data import (
    DataAugmentationDINO,
    MaskingGenerator,
    SamplerType,
    collate_data_and_cast,
    make_data_loader,
    make_dataset,
)


def loader(
    cfg: Any,
    dataset: str,
    *,
    mask_ratio: tuple[float, float] = (0.1, 0.5),
    mask_generator: Any | None = None,
) -> Any:
    """Upstream's loader with ``cfg``'s batch and crops; its masks are for 4 x 4 patches per global crop."""
    sizes = {"global_crops_size": cfg.crops.global_crops_size, "local_crops_size": cfg.crops.local_crops_size}
    transform = DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), cfg.crops.local_crops_number, **sizes)
    collate = partial(
        collate_data_and_cast,
        mask_ratio_tuple=mask_ratio,
        mask_probability=0.5,
        n_tokens=16,
        mask_generator=mask_generator or MaskingGenerator(input_size=(4, 4), max_num_patches=8),
        dtype=torch.float32,
    )
    return make_data_loader(
        dataset=make_dataset(dataset_str=dataset, transform=transform, target_transform=lambda _: ()),
        batch_size=cfg.train.batch_size_per_gpu,
        num_workers=0,
        sampler_type=SamplerType.SHARDED_INFINITE,
        collate_fn=collate,
    )


def batches(cfg: Any, dataset: str, count: int, **masks: Any) -> list[dict[str, Any]]:
    """The first ``count`` batches of `loader`."""
    return list(itertools.islice(loader(cfg, dataset, **masks), count))
