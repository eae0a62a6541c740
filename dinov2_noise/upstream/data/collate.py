"""``dinov2.data.collate``: stage, position and anchor crops reach the batch; masks are seeded by the sample.

Replaced: `collate_data_and_cast`. Batches without a curriculum are upstream's. Read against lines 10-49.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.upstream.signatures import expect_signature


def attach(module: Any) -> None:
    original = expect_signature(
        module,
        "collate_data_and_cast",
        lambda samples_list, mask_ratio_tuple, mask_probability, dtype, n_tokens=None, mask_generator=None: None,
    )

    @wraps(original)
    def collate_data_and_cast(samples_list: Any, *args: Any, **options: Any) -> dict[str, Any]:
        first = samples_list[0][0]
        if "stage" not in first:
            return dict(original(samples_list, *args, **options))
        with rng_scope(first["mask_seed"]):  # upstream draws masks from Python's global generator
            batch = dict(original(samples_list, *args, **options))
        batch["stage"], batch["number"] = first["stage"], first["number"]
        if "global_crops_anchor" in first:
            crops = [sample["global_crops_anchor"] for sample, _ in samples_list]
            stacked = torch.stack([crop[i] for i in range(len(crops[0])) for crop in crops])
            batch["collated_global_crops_anchor"] = stacked.to(batch["collated_global_crops"].dtype)
        return batch

    module.collate_data_and_cast = collate_data_and_cast
