"""Seconds per training step of plain DINOv2, NC and NCT, in one run: medians and their ratio to plain.

The three take turns, repeatedly, on batches that are ready in memory, so that a noisy machine is noisy for all of them.
Usage: python benchmarks/step_time.py [--arch vit_tiny] [--batch 8] [--crops 64 32 4] [--rounds 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from omegaconf import OmegaConf

STAGES = {
    "plain": None,
    "NC": [{"name": "denoised", "epochs": 1, "view": "denoised"}, {"name": "noisy", "epochs": 1, "view": "noisy"}],
    "NCT": [
        {"name": "denoised", "epochs": 1, "view": "denoised"},
        {"name": "noisy", "epochs": 1, "view": "noisy", "anchor": {"weight": 1.6}},
    ],
}


def build(options: argparse.Namespace, stages: list[dict[str, Any]] | None) -> Any:
    """Upstream's model, wrapped as for training, for one of the three."""
    from dinov2.configs import dinov2_default_config
    from dinov2.train.ssl_meta_arch import SSLMetaArch

    from dinov2_noise.upstream.utils.config import prepare

    content: dict[str, Any] = {
        "student": {"arch": options.arch, "patch_size": 16},
        "crops": {"local_crops_number": options.crops[2]},
        "train": {"batch_size_per_gpu": options.batch},
        "optim": {"epochs": 2},
        "dino": {"head_n_prototypes": options.prototypes},
    }
    cfg = OmegaConf.merge(dinov2_default_config, content, {"curriculum": {"stages": stages}} if stages else {})
    prepare(cfg, argparse.Namespace(), dinov2_default_config)
    torch.manual_seed(0)
    model = SSLMetaArch(cfg).to(torch.device("cuda"))
    model.prepare_for_distributed_training()
    model.train()
    return model


def batch(options: argparse.Namespace, *, noisy_stage: bool) -> dict[str, Any]:
    """Random crops with the masks upstream would draw on average: half of the crops, 30 % of their patches."""
    n, (global_px, local_px, n_local) = options.batch, options.crops
    n_patches = (global_px // 16) ** 2
    masks = torch.zeros(2 * n, n_patches, dtype=torch.bool)
    masks[:n, : max(1, round(0.3 * n_patches))] = True
    weight = (1 / masks.sum(-1).clamp(min=1)).unsqueeze(-1).expand_as(masks)[masks]
    indices = masks.flatten().nonzero().flatten()
    content = {
        "collated_global_crops": torch.randn(2 * n, 3, global_px, global_px),
        "collated_local_crops": torch.randn(n_local * n, 3, local_px, local_px),
        "collated_masks": masks,
        "mask_indices_list": indices,
        "masks_weight": weight,
        "upperbound": len(indices),
        "n_masked_patches": torch.full((1,), len(indices)),
        "stage": int(noisy_stage),
        "number": 0,
    }
    if noisy_stage:
        content["collated_global_crops_anchor"] = torch.randn(2 * n, 3, global_px, global_px)
    return content


def step(model: Any, optimizer: torch.optim.Optimizer, images: dict[str, Any]) -> float:
    """Seconds of forward, backward, optimizer and EMA."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    model.forward_backward(images, teacher_temp=0.05)
    optimizer.step()
    model.update_teacher(0.99)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="vit_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, nargs=3, default=[64, 32, 4], help="global px, local px, local crops")
    parser.add_argument("--prototypes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()

    import dinov2.distributed as distributed

    distributed.enable(overwrite=True)
    contenders = {}
    for name, stages in STAGES.items():
        model = build(options, stages)
        optimizer = torch.optim.AdamW(model.get_params_groups(), lr=1e-5)
        step(model, optimizer, batch(options, noisy_stage=False))
        contenders[name] = (model, optimizer, batch(options, noisy_stage=stages is not None))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.rounds + 2):
        for name, (model, optimizer, images) in contenders.items():
            seconds = step(model, optimizer, images)
            if turn >= 2:  # the first two warm up
                times[name].append(seconds)
    plain = statistics.median(times["plain"])
    print(f"{options.arch}, batch {options.batch}, crops {options.crops}, {options.rounds} rounds, medians")
    for name, values in times.items():
        print(f"{name:6} {statistics.median(values):7.3f} s/step   {statistics.median(values) / plain:5.2f} x plain")


if __name__ == "__main__":
    main()
