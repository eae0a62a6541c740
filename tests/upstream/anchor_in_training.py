"""Run by test_anchor_in_training.py in a process of its own: how far a step is from a slow reference.

Usage: anchor_in_training.py DATASET OUTPUT CASE, where CASE is JSON with centering, separate_head, stage (keys of the
noisy stage, with or without an anchor), student (keys of the section), weight (expected of the anchor), factors.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NamedTuple

import torch
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.utils.config import setup
from omegaconf import OmegaConf
from real_batches import batches
from torch import Tensor

from dinov2_noise.upstream import runtime

STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.05
FIRST, SECOND, ITERATIONS = 0, 2, 4  # iteration 2 is the middle of the noisy stage


def config(case: dict[str, Any]) -> dict[str, Any]:
    head = {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8}
    student = {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0}
    stage = {"name": "noisy", "epochs": 3, "view": "noisy", **case["stage"]}
    return {
        "train": {"batch_size_per_gpu": 3, "OFFICIAL_EPOCH_LENGTH": 1, "centering": case["centering"]},
        "student": student | case.get("student", {}),
        "dino": head | {"koleo_loss_weight": 0.0},
        "ibot": {**head, "separate_head": case["separate_head"]},
        "optim": {"epochs": 4, "warmup_epochs": 0},
        "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
        "curriculum": {"stages": [{"name": "denoised", "epochs": 1, "view": "denoised"}, stage]},
    }


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """One row: -sum_k t_k log softmax(s / 0.1)_k, in float64."""
    scaled = logits.double() / STUDENT_TEMP
    return -(target.double() * (scaled - torch.logsumexp(scaled, 0))).sum()


def target(logits: Tensor, center: Tensor) -> Tensor:
    return torch.softmax((logits.double() - center.double().flatten()) / TEACHER_TEMP, -1)


class Asked(NamedTuple):
    """A teacher: its networks, and the losses with its centers."""

    networks: Any
    heads: Any
    dino_loss: Any
    ibot_patch_loss: Any


def reference(model: Any, teacher: Asked, images: dict[str, Any], cfg: Any) -> Tensor:
    """DINO local, DINO global, iBOT against ``teacher`` on the denoised twins, written out per image and crop, from
    the definition in the paper's code (arXiv 2505.12191); (3,) in float64.
    """
    n, n_local = cfg.train.batch_size_per_gpu, cfg.crops.local_crops_number
    patch_head = "ibot_head" if cfg.ibot.separate_head else "dino_head"
    with torch.no_grad():
        tokens = teacher.networks["backbone"](images["collated_global_crops_anchor"], is_training=True)
        cls_logits = teacher.heads["dino_head"](tokens["x_norm_clstoken"])
        patch_logits = teacher.heads[patch_head](tokens["x_norm_patchtokens"].flatten(0, 1))
    if cfg.train.centering == "centering":
        cls_targets = target(cls_logits, teacher.dino_loss.center)
        patch_targets = target(patch_logits, teacher.ibot_patch_loss.center)
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
    local_terms, global_terms, ibot_terms = [], [], []
    for image in range(n):
        for crop in range(2):
            other = cls_targets[(1 - crop) * n + image]
            global_terms.append(cross_entropy(student_global[crop * n + image], other) / n / (2 + 2 * n_local))
            for local in range(n_local):
                mine = cls_targets[crop * n + image]
                local_terms.append(cross_entropy(student_local[local * n + image], mine) / n / (2 + 2 * n_local))
    for crop, mask in enumerate(images["collated_masks"]):
        for patch in mask.nonzero().flatten().tolist():
            row = crop * mask.numel() + patch
            ibot_terms.append(cross_entropy(student_patches[row], patch_targets[row]) / mask.sum() / (2 * n))
    return torch.stack([torch.stack(terms).sum() for terms in (local_terms, global_terms, ibot_terms)])


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


def prepared(dataset: str, output: str, case: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Model and config in the noisy stage, student, teacher and frozen teacher all different; and a batch."""
    OmegaConf.save(OmegaConf.create(config(case)), f"{output}/config-in.yaml")
    cfg = setup(argparse.Namespace(config_file=f"{output}/config-in.yaml", output_dir=output, opts=[]))
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    images = batches(cfg, dataset, ITERATIONS)
    model.forward_backward(images[FIRST], teacher_temp=TEACHER_TEMP)
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(0.02 * torch.randn_like(p))
    # Take the teacher at the switch, then let the EMA teacher move on.
    model._enter_stage(images[1])
    model.update_teacher(0.5)
    return model, cfg, images[SECOND]


def losses_with_centers(model: Any) -> list[Any]:
    owners = [model, *([model.frozen_teacher] if hasattr(model, "frozen_teacher") else [])]
    return [loss for owner in owners for loss in (owner.dino_loss, owner.ibot_patch_loss)]


def step(model: Any, images: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss terms and gradients of a step that leaves the centers as they were."""
    centers = []
    for loss in losses_with_centers(model):
        loss.apply_center_update()
        centers.append(loss.center.clone())
    terms = model.forward_backward(images, teacher_temp=TEACHER_TEMP)
    for loss, center in zip(losses_with_centers(model), centers, strict=True):
        loss.apply_center_update()
        loss.center = center
    return dict(terms), gradients(model)


def report(terms: list[Tensor], expected: Tensor, found: dict[str, Tensor], slow: dict[str, Tensor]) -> None:
    norm = torch.stack([slow[k].norm() for k in slow]).norm()
    off = torch.stack([(found[k] - slow[k]).norm() for k in slow]).norm()
    content = {
        "terms": [float(term) for term in terms],
        "expected": expected.tolist(),
        "gradient_error": float(off / norm),
    }
    print(json.dumps(content))


def check_anchor(model: Any, cfg: Any, images: dict[str, Any], case: dict[str, Any]) -> None:
    frozen = model.frozen_teacher
    own_heads = cfg.curriculum.stages[1].anchor.get("heads") == "frozen"
    asked = Asked(
        frozen.networks, frozen.networks if own_heads else model.teacher, frozen.dino_loss, frozen.ibot_patch_loss
    )
    terms, with_anchor = step(model, images)
    expected = reference(model, asked, images, cfg)
    (case["weight"] * expected * torch.tensor(case.get("factors", [1.0, 1.0, 1.0]))).sum().backward()
    slow = gradients(model)
    run = runtime.current()
    assert run is not None
    for key, value in (("weight", 0.0), ("final_weight", None)):
        object.__setattr__(run.curriculum.stages[1].anchor, key, value)
    _, without = step(model, images)
    names = ("anchor_dino_local_crops_loss", "anchor_dino_global_crops_loss", "anchor_ibot_loss")
    logged = [terms[name] for name in names]
    logged[2] = 2 * logged[2]
    report(logged, expected, {k: with_anchor[k] - without[k] for k in slow}, slow)


def check_teacher_view(model: Any, cfg: Any, images: dict[str, Any]) -> None:
    asked = Asked(model.teacher, model.teacher, model.dino_loss, model.ibot_patch_loss)
    terms, found = step(model, images)
    expected = reference(model, asked, images, cfg)
    expected.sum().backward()
    slow = gradients(model)
    logged = [terms["dino_local_crops_loss"], terms["dino_global_crops_loss"], 2 * terms["ibot_loss"]]
    report(logged, expected, found, slow)


def main() -> None:
    dataset, output, text = sys.argv[1:]
    case = json.loads(text)
    model, cfg, images = prepared(dataset, output, case)
    if "anchor" in case["stage"]:
        check_anchor(model, cfg, images, case)
    else:
        check_teacher_view(model, cfg, images)


main()
