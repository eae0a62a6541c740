"""Run by test_watched.py in a process of its own: waits for the device per step, skipped steps, and a whole small run.

Usage: watched_in_training.py DATASET OUTPUT
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from dinov2.fsdp import FSDPCheckpointer
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.train import do_train
from dinov2.utils import config as upstream_config
from omegaconf import OmegaConf
from real_batches import batches
from torch.utils._python_dispatch import TorchDispatchMode

from dinov2_noise.errors import DivergedError

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")
STAGES: dict[str, Any] = {
    "nc": [
        {"name": "denoised", "epochs": 1, "view": "denoised", "schedule_epochs": 2},
        {"name": "noisy", "epochs": 1, "view": "noisy", "restart": True},
    ],
    "nct": [
        {"name": "denoised", "epochs": 1, "view": "denoised", "schedule_epochs": 2},
        {"name": "noisy", "epochs": 1, "view": "noisy", "restart": True, "anchor": {"weight": 1.0}},
    ],
}
CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 4, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 3, "centering": "centering"},
    "student": {"arch": "vit_tiny", "patch_size": 16, "drop_path_rate": 0.0, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 2, "warmup_epochs": 0, "base_lr": 1e-4},
    "teacher": {"warmup_teacher_temp_epochs": 1},
    "crops": {"global_crops_size": 64, "local_crops_size": 32, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 0},
}


class Waits(TorchDispatchMode):
    """Counts operators for which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def build_config(dataset: str, output: Path, kind: str, **health: Any) -> Any:
    sections = {"curriculum": {"stages": STAGES[kind]}, "health": {"trial_save": False, **health}} if kind else {}
    content = OmegaConf.merge(CONFIG, {"train": {"dataset_path": dataset}}, sections)
    output.mkdir(parents=True)
    OmegaConf.save(content, output / "config-in.yaml")
    args = argparse.Namespace(config_file=str(output / "config-in.yaml"), output_dir=str(output), opts=[])
    if not torch.distributed.is_initialized():
        return upstream_config.setup(args)
    cfg = upstream_config.get_cfg_from_args(args)
    upstream_config.apply_scaling_rules_to_cfg(cfg)
    return cfg


def build_model(cfg: Any) -> tuple[Any, torch.optim.Optimizer]:
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    model.train()
    optimizer = torch.optim.AdamW(model.get_params_groups(), lr=1e-4)
    FSDPCheckpointer(model, str(cfg.train.output_dir), optimizer=optimizer)
    return model, optimizer


def step(model: Any, optimizer: torch.optim.Optimizer, images: dict[str, Any]) -> dict[str, float]:
    """What upstream's loop does with a batch, up to its meters."""
    optimizer.zero_grad(set_to_none=True)
    losses = model.forward_backward(images, teacher_temp=0.05)
    if model.fp16_scaler is not None:
        model.fp16_scaler.unscale_(optimizer)
        model.fp16_scaler.step(optimizer)
        model.fp16_scaler.update()
    else:
        optimizer.step()
    model.update_teacher(0.99)
    return {k: v.item() / 1 for k, v in losses.items()}


def waits_per_step(dataset: str, output: Path, kind: str) -> dict[str, Any]:
    """Of a step that is not measured; for NCT of the second in its anchored stage, after three in the first."""
    cfg = build_config(dataset, output, kind, **({"period_iterations": 100} if kind else {}))
    model, optimizer = build_model(cfg)
    *before, images = batches(cfg, cfg.train.dataset_path, 5 if kind == "nct" else 2)
    for earlier in before:
        step(model, optimizer, earlier)
    with Waits() as waits:
        losses = step(model, optimizer, images)
    return {"waits": dict(waits.seen), "terms": sorted(losses)}


def skipped_steps(dataset: str, output: Path) -> str:
    """The error after three steps whose scaled loss overflows."""
    cfg = build_config(dataset, output, "nc", period_iterations=0, max_skipped_steps=3)
    model, optimizer = build_model(cfg)
    # Twice the largest float32 and more; it comes down slowly.
    model.fp16_scaler = torch.amp.GradScaler("cpu", init_scale=3e38, backoff_factor=0.99)
    done = 0
    try:
        for images in batches(cfg, cfg.train.dataset_path, 3):
            step(model, optimizer, images)
            done += 1
    except DivergedError as error:
        return f"{done} steps, then {error}"
    return "no error"


def whole_run(dataset: str, output: Path) -> None:
    cfg = build_config(dataset, output, "nct", period_iterations=2)
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    do_train(cfg, model)


def main() -> None:
    dataset, output = sys.argv[1], Path(sys.argv[2])
    found: dict[str, Any] = {
        kind or "plain": waits_per_step(dataset, output / (kind or "plain"), kind) for kind in ("", "nc", "nct")
    }
    found["skipped"] = skipped_steps(dataset, output / "skipped")
    whole_run(dataset, output / "run")
    print(json.dumps(found))


main()
