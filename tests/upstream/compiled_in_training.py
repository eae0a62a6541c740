"""Run by test_compiled.py in a process of its own: two steps with and without ``step.compile``, the second anchored and
with larger crops.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import dinov2.distributed as distributed
import torch
from dinov2.configs import dinov2_default_config
from dinov2.train.ssl_meta_arch import SSLMetaArch
from omegaconf import OmegaConf

from dinov2_noise.upstream.utils.config import prepare

HEAD = {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8}
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 2, "OFFICIAL_EPOCH_LENGTH": 1},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.1, "layerscale": 1.0},
    "dino": HEAD,
    "optim": {"epochs": 2, "warmup_epochs": 0},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "health": {"period_iterations": 0},  # its file would land in the working directory
    "curriculum": {
        "stages": [
            {
                "name": "denoised",
                "epochs": 1,
                "view": "denoised",
                "crops": {"global_crops_size": 32, "local_crops_size": 16},
            },
            {"name": "noisy", "epochs": 1, "view": "noisy", "anchor": {"weight": 1.6}},
        ]
    },
}


def batch(stage: int) -> dict[str, Any]:
    side = (32, 64)[stage]
    masks = torch.zeros(4, (side // 16) ** 2, dtype=torch.bool)
    masks[:2, 1:4] = True
    return {
        "collated_global_crops": torch.randn(4, 3, side, side),
        "collated_global_crops_anchor": torch.randn(4, 3, side, side),
        "collated_local_crops": torch.randn(4, 3, side // 2, side // 2),
        "collated_masks": masks,
        "mask_indices_list": masks.flatten().nonzero().flatten(),
        "masks_weight": torch.full((6,), 1 / 3),
        "upperbound": 6,
        "n_masked_patches": torch.full((1,), 6),
        "stage": stage,
        "number": 2 * stage,
    }


def train(compiled: bool) -> dict[str, Any]:
    cfg = OmegaConf.merge(dinov2_default_config, CONFIG, {"step": {"compile": compiled}})
    prepare(cfg, argparse.Namespace(), dinov2_default_config)
    torch.manual_seed(0)
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    optimizer = torch.optim.SGD(model.get_params_groups(), lr=0.01)
    losses, norms = [], []
    for stage in range(2):
        optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(stage)
        found = model.forward_backward(batch(stage), teacher_temp=0.05)
        losses.append({name: float(value) for name, value in found.items()})
        norms.append(float(model.student.backbone.clip_grad_norm_(1.0)))
        optimizer.step()
        model.update_teacher(0.9)
    blocks = [part for part in model.modules() if type(part).__name__ == "NestedTensorBlock"]
    n_compiled = sum(block._compiled_call_impl is not None for block in blocks)
    return {"losses": losses, "norms": norms, "names": sorted(model.state_dict()), "n_compiled": n_compiled}


distributed.enable(overwrite=True)
print(json.dumps([train(compiled=False), train(compiled=True)]))
