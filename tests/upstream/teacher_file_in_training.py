"""Run by test_teacher_file.py in a process of its own: what a frozen teacher from a file holds after the first step.

Usage: teacher_file_in_training.py DATASET OUTPUT CASE, where CASE is JSON with kind (hub, teacher, full), heads and
patch_size (of the file's network). Prints JSON: largest differences of frozen networks and centers from the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from dinov2.layers import DINOHead
from dinov2.models.vision_transformer import vit_tiny
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.utils.config import setup
from omegaconf import OmegaConf
from real_batches import batches
from torch import Tensor

HEAD = {"head_n_prototypes": 16, "head_hidden_dim": 24, "head_bottleneck_dim": 8}
FILE_SIDE_PX = {"hub": 96, "teacher": 64, "full": 64}  # the hub file has a larger position grid


def weights_file(path: str, kind: str, patch_size: int) -> dict[str, Tensor]:
    torch.manual_seed(7)
    backbone = vit_tiny(patch_size=patch_size, img_size=FILE_SIDE_PX[kind], init_values=1.0, block_chunks=0)
    head = DINOHead(in_dim=192, out_dim=16, hidden_dim=24, bottleneck_dim=8)
    content = {f"teacher.backbone.{name}": value for name, value in backbone.state_dict().items()}
    content |= {f"teacher.dino_head.{name}": value for name, value in head.state_dict().items()}
    content |= {"dino_loss.center": torch.randn(1, 16), "ibot_patch_loss.center": torch.randn(1, 1, 16)}
    students = {f"student{k.removeprefix('teacher')}": v + 1 for k, v in content.items() if k.startswith("teacher.")}
    saved: dict[str, Any] = {
        "hub": backbone.state_dict(),
        "teacher": {"teacher": {k.removeprefix("teacher."): v for k, v in content.items() if k.startswith("teacher.")}},
        "full": {"model": content | students},
    }
    torch.save(saved[kind], path)
    return content


def config(case: dict[str, Any], file: str) -> dict[str, Any]:
    anchor = {"weight": 1.0, "teacher": file, "heads": case["heads"]}
    stages: list[dict[str, Any]] = [{"name": "continued", "epochs": 1, "view": "noisy", "anchor": anchor}]
    if case.get("then_own_heads"):
        stages.append({"name": "then", "epochs": 1, "view": "noisy", "anchor": {"weight": 1.0, "heads": "frozen"}})
    return {
        "train": {"batch_size_per_gpu": 2, "OFFICIAL_EPOCH_LENGTH": 1},
        "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "block_chunks": 4},
        "dino": HEAD,
        "ibot": HEAD,
        "optim": {"epochs": len(stages), "warmup_epochs": 0},
        "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 1},
        "curriculum": {"stages": stages},
    }


def differences(model: Any, content: dict[str, Tensor]) -> dict[str, float]:
    """Names without block chunks; the position grid apart, which may have been resized."""
    found = {}
    for name, value in model.frozen_teacher.networks.state_dict().items():
        part, *rest = name.split(".")
        if rest[0] == "blocks":  # blocks.<chunk>.<block>: the second number counts through
            rest = ["blocks", *rest[2:]]
        key = f"teacher.{part}.{'.'.join(rest)}"
        if value.shape == content[key].shape:
            found[name] = float((value - content[key]).abs().max())
    return found


def main() -> None:
    dataset, output, text = sys.argv[1:]
    case = json.loads(text)
    file = f"{output}/teacher.pth"
    content = weights_file(file, case["kind"], case["patch_size"])
    OmegaConf.save(OmegaConf.create(config(case, file)), f"{output}/config-in.yaml")
    cfg = setup(argparse.Namespace(config_file=f"{output}/config-in.yaml", output_dir=output, opts=[]))
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    (images,) = batches(cfg, dataset, 1)
    model._enter_stage(images)
    if case.get("then_own_heads"):  # the heads of the first stage are not the file's
        content |= {name: value for name, value in model.state_dict().items() if name.startswith("teacher.dino_head")}
    off = differences(model, content)
    centers = [model.frozen_teacher.dino_loss.center, model.frozen_teacher.ibot_patch_loss.center]
    kept = [content["dino_loss.center"], content["ibot_patch_loss.center"]]
    print(
        json.dumps(
            {
                "compared": len(off),
                "largest": max(off.values()),
                "heads": sum(name.startswith("dino_head") for name in off),
                "positions": list(model.frozen_teacher.networks["backbone"].pos_embed.shape),
                "centers_off": max(float((a - b).abs().max()) for a, b in zip(centers, kept, strict=True)),
                "centers_size": max(float(center.abs().max()) for center in centers),
            }
        )
    )


main()
