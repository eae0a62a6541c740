"""Run by test_anchor_in_training.py in a process of its own: how far the anchor is from a slow reference.

Usage: anchor_in_training.py DATASET OUTPUT CENTERING HEADS SEPARATE_IBOT_HEAD
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
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
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.utils.config import setup
from omegaconf import OmegaConf
from torch import Tensor

from dinov2_noise.upstream import runtime

WEIGHT, STUDENT_TEMP, TEACHER_TEMP = 1.6, 0.1, 0.05


def config(centering: str, heads: str, separate: bool) -> dict[str, Any]:
    head = {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8}
    return {
        "train": {"batch_size_per_gpu": 3, "OFFICIAL_EPOCH_LENGTH": 1, "centering": centering},
        "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
        "dino": head,
        "ibot": {**head, "separate_head": separate},
        "optim": {"epochs": 2, "warmup_epochs": 0},
        "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
        "curriculum": {
            "stages": [
                {"name": "denoised", "epochs": 1, "view": "denoised"},
                {"name": "noisy", "epochs": 1, "view": "noisy", "anchor": {"weight": WEIGHT, "heads": heads}},
            ]
        },
    }


def batches(cfg: Any, dataset: str) -> list[dict[str, Any]]:
    sizes = {"global_crops_size": cfg.crops.global_crops_size, "local_crops_size": cfg.crops.local_crops_size}
    transform = DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), cfg.crops.local_crops_number, **sizes)
    collate = partial(
        collate_data_and_cast,
        mask_ratio_tuple=(0.1, 0.5),
        mask_probability=0.5,
        n_tokens=16,
        mask_generator=MaskingGenerator(input_size=(4, 4), max_num_patches=8),
        dtype=torch.float32,
    )
    loader = make_data_loader(
        dataset=make_dataset(dataset_str=dataset, transform=transform, target_transform=lambda _: ()),
        batch_size=cfg.train.batch_size_per_gpu,
        num_workers=0,
        sampler_type=SamplerType.SHARDED_INFINITE,
        collate_fn=collate,
    )
    return list(itertools.islice(loader, 2))


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """One row: -sum_k t_k log softmax(s / 0.1)_k, in float64."""
    scaled = logits.double() / STUDENT_TEMP
    return -(target.double() * (scaled - torch.logsumexp(scaled, 0))).sum()


def target(logits: Tensor, center: Tensor) -> Tensor:
    return torch.softmax((logits.double() - center.double().flatten()) / TEACHER_TEMP, -1)


def reference(model: Any, images: dict[str, Any], cfg: Any) -> Tensor:
    """The anchor written out per image and crop, from the definition in the paper's code (arXiv 2505.12191)."""
    n, n_local = cfg.train.batch_size_per_gpu, cfg.crops.local_crops_number
    own_heads = cfg.curriculum.stages[1].anchor.heads == "frozen"
    heads = model.frozen_teacher.networks if own_heads else model.teacher
    patch_head = "ibot_head" if cfg.ibot.separate_head else "dino_head"
    with torch.no_grad():
        frozen = model.frozen_teacher.networks["backbone"](images["collated_global_crops_anchor"], is_training=True)
        cls_logits = heads["dino_head"](frozen["x_norm_clstoken"])
        patch_logits = heads[patch_head](frozen["x_norm_patchtokens"].flatten(0, 1))
    if cfg.train.centering == "centering":
        cls_targets = target(cls_logits, model.frozen_teacher.dino_loss.center)
        patch_targets = target(patch_logits, model.frozen_teacher.ibot_patch_loss.center)
    else:
        cls_targets = sinkhorn(cls_logits)
        patch_targets = torch.zeros_like(patch_logits).double()
        chosen = images["mask_indices_list"]
        patch_targets[chosen] = sinkhorn(patch_logits[chosen])
    global_out, local_out = model.student.backbone(
        [images["collated_global_crops"], images["collated_local_crops"]],
        masks=[images["collated_masks"], None],
        is_training=True,
    )
    student_global = model.student["dino_head"](global_out["x_norm_clstoken"])
    student_local = model.student["dino_head"](local_out["x_norm_clstoken"])
    student_patches = model.student[patch_head](global_out["x_norm_patchtokens"].flatten(0, 1))
    total = torch.zeros((), dtype=torch.float64)
    for image in range(n):
        for crop in range(2):
            other = cls_targets[(1 - crop) * n + image]
            total = total + cross_entropy(student_global[crop * n + image], other) / n / (2 + 2 * n_local)
            for local in range(n_local):
                mine = cls_targets[crop * n + image]
                total = total + cross_entropy(student_local[local * n + image], mine) / n / (2 + 2 * n_local)
    for crop, mask in enumerate(images["collated_masks"]):
        for patch in mask.nonzero().flatten().tolist():
            row = crop * mask.numel() + patch
            total = total + cross_entropy(student_patches[row], patch_targets[row]) / mask.sum() / (2 * n)
    return total


def sinkhorn(logits: Tensor) -> Tensor:
    """Three rounds of making rows (prototypes) and columns (samples) sum to equal shares; (N, K) → (N, K)."""
    plan = torch.exp(logits.double() / TEACHER_TEMP).T
    plan = plan / plan.sum()
    for _ in range(3):
        plan = plan / plan.sum(1, keepdim=True) / plan.shape[0]
        plan = plan / plan.sum(0, keepdim=True) / plan.shape[1]
    return (plan * plan.shape[1]).T


def gradients(model: Any) -> dict[str, Tensor]:
    found = {k: p.grad.clone() for k, p in model.student.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def main() -> None:
    dataset, output, centering, heads, separate = sys.argv[1:]
    content = config(centering, heads, separate == "separate")
    OmegaConf.save(OmegaConf.create(content), f"{output}/config-in.yaml")
    cfg = setup(argparse.Namespace(config_file=f"{output}/config-in.yaml", output_dir=output, opts=[]))
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    first, second = batches(cfg, dataset)
    model.forward_backward(first, teacher_temp=TEACHER_TEMP)
    model.zero_grad(set_to_none=True)
    with torch.no_grad():  # student, teacher and what will be frozen must differ
        for p in model.student.parameters():
            p.add_(0.02 * torch.randn_like(p))
    # Take the teacher at the switch, then let the EMA teacher move on.
    model._enter_stage(second)
    model.update_teacher(0.5)
    anchored = model.frozen_teacher
    losses = [owner_loss for owner in (anchored, model) for owner_loss in (owner.dino_loss, owner.ibot_patch_loss)]
    for loss in losses:
        loss.apply_center_update()
    centers = [loss.center.clone() for loss in losses]

    terms = model.forward_backward(second, teacher_temp=TEACHER_TEMP)
    with_anchor = gradients(model)
    for loss, center in zip(losses, centers, strict=True):
        loss.center, loss.updated = center, True  # forget what the step has added
    expected = reference(model, second, cfg)
    (WEIGHT * expected).backward()
    slow = gradients(model)
    run = runtime.current()
    assert run is not None
    object.__setattr__(run.curriculum.stages[1].anchor, "weight", 0.0)
    model.forward_backward(second, teacher_temp=TEACHER_TEMP)
    without = gradients(model)

    logged = terms["anchor_dino_local_crops_loss"] + terms["anchor_dino_global_crops_loss"]
    logged = logged + 2 * terms["anchor_ibot_loss"]
    norm = torch.stack([slow[k].norm() for k in slow]).norm()
    off = torch.stack([(with_anchor[k] - without[k] - slow[k]).norm() for k in slow]).norm()
    print(json.dumps({"loss": float(logged), "expected": float(expected), "gradient_error": float(off / norm)}))


main()
