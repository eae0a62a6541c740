"""Run by test_monitored.py in a process of its own: the same small run with monitoring, without, and interrupted.

Usage: monitored_in_training.py NOISY CLEAN DENOISED OUTPUT
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dinov2.models import vision_transformer
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.train import do_train
from dinov2.utils import config as upstream_config
from omegaconf import OmegaConf
from short_vit import vit_short

from dinov2_noise.upstream import rng, runtime
from dinov2_noise.upstream.train import monitored

CONFIG: dict[str, Any] = {
    "train": {"batch_size_per_gpu": 4, "num_workers": 0, "OFFICIAL_EPOCH_LENGTH": 2, "centering": "centering"},
    "student": {"arch": "vit_short", "patch_size": 16, "drop_path_rate": 0.3, "layerscale": 1.0},
    "dino": {"head_n_prototypes": 32, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
    "optim": {"epochs": 5, "warmup_epochs": 0, "base_lr": 0.01},
    "teacher": {"warmup_teacher_temp_epochs": 1, "momentum_teacher": 0.8},
    "crops": {"global_crops_size": 32, "local_crops_size": 16, "local_crops_number": 2},
    "evaluation": {"eval_period_iterations": 3},
    "health": {"trial_save": False},
    "curriculum": {
        "stages": [
            {"name": "denoised", "epochs": 2, "view": "denoised", "schedule_epochs": 5},
            {"name": "noisy", "epochs": 3, "view": "noisy", "restart": True, "teacher_view": "denoised"},
        ]
    },
}


class InterruptionError(Exception):
    """In the place of a kill."""


def train(folder: Path, dataset: str, monitor: dict[str, Any], *, until: int | None = None) -> dict[str, Any]:
    """One run; ``until``: broken off before the checkpoint of this iteration."""
    content = OmegaConf.merge(CONFIG, {"train": {"dataset_path": dataset, "output_dir": str(folder)}})
    content = OmegaConf.merge(content, {"monitor": monitor})
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(content, folder / "config-in.yaml")
    opts = [f"train.output_dir={folder}"]
    args = argparse.Namespace(config_file=str(folder / "config-in.yaml"), output_dir=str(folder), opts=opts)
    args.no_resume, args.eval_only = False, False
    if not torch.distributed.is_initialized():
        upstream_config.setup(args)
    cfg = upstream_config.get_cfg_from_args(args)
    upstream_config.apply_scaling_rules_to_cfg(cfg)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global one, which the run uses
    random.seed(0)
    model: Any = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    run = runtime.current()
    if until is not None:
        after_step = run.monitoring.after_step

        def interrupted(metrics: Any) -> None:
            after_step(metrics)
            if run.monitoring._iteration == until:
                raise InterruptionError

        run.monitoring.after_step = interrupted
    try:
        do_train(cfg, model, resume=True)
    except InterruptionError:
        return {}
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    modes = [model.student.training, model.teacher.training, any(p.requires_grad for p in model.teacher.parameters())]
    generators = hashlib.sha256(repr(rng.capture()).encode()).hexdigest()
    return {"weights": digest.hexdigest(), "generators": generators, "modes": modes}


def budget_with_a_slow_clock(folder: Path, dataset: str, monitor: dict[str, Any]) -> None:
    """Each look at the clock is a second later, and each measurement takes 100."""
    seconds = iter(range(10**6))
    measure = monitored.Monitoring._measure

    def slow(self: Any, *place: Any) -> None:
        measure(self, *place)
        for _ in range(100):
            next(seconds)

    perf_counter = time.perf_counter
    time.perf_counter = lambda: float(next(seconds))
    monitored.Monitoring._measure = slow  # type: ignore[method-assign]
    try:
        train(folder, dataset, monitor | {"max_time_share": 0.5})
    finally:
        time.perf_counter = perf_counter
        monitored.Monitoring._measure = measure  # type: ignore[method-assign]


def main() -> None:
    vision_transformer.vit_short = vit_short
    noisy, clean, denoised, output = sys.argv[1:5]
    dataset, folder = f"ImageNet:split=TRAIN:root={noisy}:denoised={denoised}", Path(output)
    labelled = {key: f"ImageNet:split={key.upper()}:root={noisy}" for key in ("train", "val")}
    on = {**labelled, "clean": clean, "n_train": 15, "n_images": 7, "knn": 3, "line_period_iterations": 4}
    whole = {**on, "max_time_share": 1.0}
    found = {"on": train(folder / "on", dataset, whole)}
    found["off"] = train(folder / "off", dataset, {"enabled": False})
    train(folder / "interrupted", dataset, whole, until=8)
    train(folder / "interrupted", dataset, whole)
    budget_with_a_slow_clock(folder / "slow", dataset, on)
    train(folder / "plain", dataset, {"tensorboard": False, "n_images": 0, "line_period_iterations": 0})
    print(json.dumps(found))


main()
