"""``dinov2.data.collate``: stage, position and anchor crops reach the batch; masks are seeded by the sample.

Replaced: `collate_data_and_cast`. Batches without a curriculum are upstream's. In a stage with crops of its own the
masks are for their patches. Read against lines 10-49, and against lines 167-174 of ``train/train.py``, where the mask
generator is made.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.upstream.signatures import expect_signature


def masks_for(grid: int, mask_generator: Any) -> dict[str, Any]:
    """Upstream's ``n_tokens`` and ``mask_generator`` for global crops of ``grid`` x ``grid`` patches.

    At most half of the patches are masked in one block: upstream computes ``0.5 * img_size // patch_size * img_size //
    patch_size`` from left to right, which for whole patches is this.
    """
    generator = type(mask_generator)(input_size=(grid, grid), max_num_patches=float(grid // 2 * grid))
    return {"n_tokens": grid**2, "mask_generator": generator}


def attach(module: Any) -> None:
    original = expect_signature(
        module,
        "collate_data_and_cast",
        lambda samples_list, mask_ratio_tuple, mask_probability, dtype, n_tokens=None, mask_generator=None: None,
    )

    @wraps(original)
    def collate_data_and_cast(
        samples_list: Any,
        mask_ratio_tuple: Any,
        mask_probability: Any,
        dtype: Any,
        n_tokens: Any = None,
        mask_generator: Any = None,
    ) -> dict[str, Any]:
        masks = {"n_tokens": n_tokens, "mask_generator": mask_generator}
        first = samples_list[0][0]
        if "stage" not in first:
            return dict(original(samples_list, mask_ratio_tuple, mask_probability, dtype, **masks))
        if "mask_grid" in first:
            masks = masks_for(first["mask_grid"], mask_generator)
        with rng_scope(first["mask_seed"]):  # upstream draws masks from Python's global generator
            batch = dict(original(samples_list, mask_ratio_tuple, mask_probability, dtype, **masks))
        batch["stage"], batch["number"] = first["stage"], first["number"]
        if "global_crops_anchor" in first:
            crops = [sample["global_crops_anchor"] for sample, _ in samples_list]
            stacked = torch.stack([crop[i] for i in range(len(crops[0])) for crop in crops])
            batch["collated_global_crops_anchor"] = stacked.to(batch["collated_global_crops"].dtype)
        return batch

    module.collate_data_and_cast = collate_data_and_cast
