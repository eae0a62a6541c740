"""Run by test_micro_batches.py in a process of its own: one step in 1, 2 and 3 parts, compared.

Usage: micro_batches_in_training.py DATASET OUTPUT SEPARATE_IBOT_HEAD
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.utils.config import setup
from omegaconf import OmegaConf
from real_batches import batches
from torch import Tensor

from dinov2_noise.upstream.train.micro_batches import split_batch

N_IMAGES = 6


def config(separate: bool) -> dict[str, Any]:
    head = {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8}
    return {
        "train": {"batch_size_per_gpu": N_IMAGES, "OFFICIAL_EPOCH_LENGTH": 1, "centering": "centering"},
        "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
        "dino": head,
        "ibot": {**head, "separate_head": separate},
        "optim": {"epochs": 2, "warmup_epochs": 0},
        "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
        "curriculum": {
            "stages": [
                {"name": "denoised", "epochs": 1, "view": "denoised"},
                {"name": "noisy", "epochs": 1, "view": "noisy", "anchor": {"weight": 1.6}},
            ]
        },
        "step": {"micro_batches": 2},
    }


def without_masks(images: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """The batch with no masked patch in the crops ``rows``."""
    masks = images["collated_masks"].clone()
    masks[rows] = False
    kept = masks[images["collated_masks"]]
    indices = masks.flatten().nonzero().flatten()
    return images | {
        "collated_masks": masks,
        "mask_indices_list": indices,
        "masks_weight": images["masks_weight"][kept],
        "n_masked_patches": torch.full((1,), len(indices)),
    }


def centers(model: Any) -> dict[str, Tensor]:
    """The centers with the step's update, by name; a copy."""
    found = {}
    for owner_name, owner in (("own", model), ("anchor", model.frozen_teacher)):
        for name in ("dino_loss", "ibot_patch_loss"):
            loss = getattr(owner, name)
            loss.apply_center_update()
            found[f"{owner_name}.{name}"] = loss.center.clone()
    return found


def restore(model: Any, kept: dict[str, Tensor]) -> None:
    for owner_name, owner in (("own", model), ("anchor", model.frozen_teacher)):
        for name in ("dino_loss", "ibot_patch_loss"):
            getattr(owner, name).center = kept[f"{owner_name}.{name}"].clone()


def step(model: Any, images: dict[str, Any], n_parts: int, start: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Losses, gradients and moved centers of one step in ``n_parts`` parts, from the same state each time."""
    restore(model, start)
    model.zero_grad(set_to_none=True)
    model._n_parts = n_parts
    object.__setattr__(model._run.step, "micro_batches", n_parts)
    copy = {key: value.clone() if isinstance(value, Tensor) else value for key, value in images.items()}
    losses = model.forward_backward(copy, teacher_temp=0.05)
    numbers = {name: torch.tensor(float(value)) for name, value in losses.items()}
    gradients = {name: p.grad.clone() for name, p in model.student.named_parameters() if p.grad is not None}
    return {"losses": numbers, "gradients": gradients, "centers": centers(model)}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest deviation of any entry, relative to the entry's norm and, for vanishing ones, the mean norm."""
    assert found.keys() == expected.keys()
    typical = torch.stack([value.norm() for value in expected.values()]).mean()
    off = [(found[k] - expected[k]).norm() / (expected[k].norm() + 1e-3 * typical) for k in expected]
    return float(torch.stack(off).max())


def compare(model: Any, images: dict[str, Any], start: dict[str, Tensor]) -> dict[str, Any]:
    """How far 2 and 3 parts are from the whole batch, per kind of result."""
    whole = step(model, images, 1, start)
    report: dict[str, Any] = {"masked": [int(part["n_masked_patches"]) for part in split_batch(images, 2)]}
    report["center_moved"] = difference(whole["centers"], start)
    report["losses"] = sorted(whole["losses"])
    for n_parts in (2, 3):
        split = step(model, images, n_parts, start)
        report[str(n_parts)] = {kind: difference(split[kind], whole[kind]) for kind in whole}
    return report


def without_targets(model: Any, images: dict[str, Any], start: dict[str, Tensor]) -> dict[str, Any]:
    """What a batch without a single masked patch leaves behind."""
    found = step(model, images, 2, start)
    finite = all(bool(value.isfinite().all()) for kind in found.values() for value in kind.values())
    kept = {name: center for name, center in start.items() if "ibot" in name}
    return {"finite": finite, "center_moved": difference({name: found["centers"][name] for name in kept}, kept)}


def main() -> None:
    dataset, output, separate = sys.argv[1:]
    OmegaConf.save(OmegaConf.create(config(separate == "separate")), f"{output}/config-in.yaml")
    cfg = setup(argparse.Namespace(config_file=f"{output}/config-in.yaml", output_dir=output, opts=[]))
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    first, second = batches(cfg, dataset, 2, mask_ratio=(0.2, 0.5))
    model.forward_backward(first, teacher_temp=0.05)
    with torch.no_grad():  # student, teacher and what will be frozen must differ
        for p in model.student.parameters():
            p.add_(0.02 * torch.randn_like(p))
    model._enter_stage(second)
    model.update_teacher(0.5)
    start = centers(model)
    model.do_koleo = False  # of all terms the only one whose value depends on the parts
    # In one batch the first part has no masked patch, in another none has.
    uneven = without_masks(second, [0, 1, 2, N_IMAGES, N_IMAGES + 1, N_IMAGES + 2])
    report = {"drawn": compare(model, second, start), "uneven": compare(model, uneven, start)}
    report["none"] = without_targets(model, without_masks(second, [*range(2 * N_IMAGES)]), start)
    model.do_koleo = True
    halves = list(split_batch(second, 2))
    koleo = [float(step(model, part, 1, start)["losses"]["koleo_loss"]) for part in halves]
    report["koleo"] = {"halves": koleo, "split": float(step(model, second, 2, start)["losses"]["koleo_loss"])}
    print(json.dumps(report))


main()
