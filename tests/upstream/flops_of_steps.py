"""Run by test_estimate.py in a process of its own: FLOPs of real steps, counted while they run.

Usage: flops_of_steps.py DATASET OUTPUT
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dinov2.models import vision_transformer
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.utils.config import apply_scaling_rules_to_cfg, get_cfg_from_args, setup
from omegaconf import OmegaConf
from real_batches import batches
from short_vit import vit_short
from torch import distributed
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

HEAD = {"head_n_prototypes": 256, "head_hidden_dim": 64, "head_bottleneck_dim": 32}
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 6, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 1, "centering": "centering"},
    "student": {"arch": "vit_short", "patch_size": 16, "drop_path_rate": 0.2, "layerscale": 1.0},
    "dino": HEAD,
    "ibot": HEAD,
    "optim": {"epochs": 2, "warmup_epochs": 0},
    "teacher": {"warmup_teacher_temp_epochs": 0},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 3},
    "health": {"trial_save": False, "period_iterations": 0},
    "curriculum": {
        "stages": [
            {"name": "low", "epochs": 1, "view": "denoised", "crops": {"global_crops_size": 48}},
            {"name": "noisy", "epochs": 1, "view": "noisy", "anchor": {"weight": 1.0}},
        ]
    },
}
CASES: dict[str, dict[str, Any]] = {
    "one head": {},
    "two heads, micro-batches": {
        "ibot": {"separate_head": True},
        "student": {"drop_path_rate": 0.0},
        "step": {"micro_batches": 2},
    },
}


def counted(cfg: Any) -> list[float]:
    """FLOPs of a step in each stage. Attention as plain matrix products: not all CPU kernels are counted."""
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    found = []
    for images in batches(cfg, cfg.train.dataset_path, 2):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.forward_backward(images, teacher_temp=0.05)
        found.append(float(counter.get_total_flops()))
    return found


def main() -> None:
    dataset, output = sys.argv[1], Path(sys.argv[2])
    vision_transformer.vit_short = vit_short
    found: dict[str, Any] = {}
    for case, own in CASES.items():
        path = output / f"{case}.yaml"
        OmegaConf.save(OmegaConf.merge(CONFIG, own, {"train": {"dataset_path": dataset}}), path)
        args = argparse.Namespace(config_file=str(path), output_dir=str(output / case), opts=[])
        (output / case).mkdir()
        cfg = apply_scaling_rules_to_cfg(get_cfg_from_args(args)) if distributed.is_initialized() else setup(args)
        found[case] = counted(cfg)
    print(json.dumps(found))


main()
