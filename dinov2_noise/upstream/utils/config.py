"""``dinov2.utils.config``: read our sections, strictly, as soon as upstream has merged its config.

Replaced: `get_cfg_from_args`. Without our sections the merged config is upstream's, except for the precision on a
CPU. Read against lines 38-44 and 63-72.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dinov2_noise import data
from dinov2_noise.configs import GUARD, register_guard, resolve_config_file
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.frequency import Crops, check_crops
from dinov2_noise.curriculum.schedules import ScheduleSettings, staged_schedules
from dinov2_noise.curriculum.sections import parse_health, parse_loader, parse_monitor, parse_step
from dinov2_noise.curriculum.stages import build
from dinov2_noise.errors import CheckpointError, ConfigError, DinoNoiseError
from dinov2_noise.upstream import heartbeat, runtime
from dinov2_noise.upstream.data.loaders import require_denoised, require_fast
from dinov2_noise.upstream.signatures import expect_signature
from dinov2_noise.upstream.train import monitored
from dinov2_noise.upstream.utils import options, strict

logger = logging.getLogger("dinov2")


def attach(module: Any) -> None:
    original = expect_signature(module, "get_cfg_from_args", lambda args: None)

    @wraps(original)
    def get_cfg_from_args(args: Any) -> Any:
        register_guard()
        args.config_file = resolve_config_file(args.config_file)
        args.opts, of_stages = options.split_options(args.opts)
        cfg = original(args)
        args.opts += of_stages
        options.apply_options(cfg, of_stages)
        try:
            prepare(cfg, args, module.dinov2_default_config)
        except DinoNoiseError as error:
            heartbeat.record(error)
            raise
        return cfg

    module.get_cfg_from_args = get_cfg_from_args


def prepare(cfg: Any, args: Any, upstream_defaults: Any) -> None:
    """Check ``cfg``, fit it to the device, and start the `runtime.Run` it describes.

    Raises:
        ConfigError: our sections, or any key of a config that uses them, are wrong, or images they need are not named.
        OutputFolderError: training into a folder that holds the checkpoints of another config.
    """
    run = None
    is_ours = any(name in cfg for name in strict.OUR_SECTIONS) or _is_guarded(cfg)
    if is_ours:
        strict.check_keys(cfg, upstream_defaults)
        options.require_values(cfg)
    if cfg.get("curriculum") is not None:
        strict.check_numbers(cfg)
        config = parse_curriculum(cfg.curriculum, total_epochs=cfg.optim.epochs)
        crops = Crops.from_config(cfg)
        check_crops(config.stages, crops)
        step = parse_step(cfg.get("step"), batch_size=cfg.train.batch_size_per_gpu)
        curriculum = build(config, cfg.train.OFFICIAL_EPOCH_LENGTH, crops)
        run = runtime.Run(cfg, config, curriculum, step, parse_health(cfg.get("health")))
        run.loader = parse_loader(cfg.get("loader"))
        run.monitor = parse_monitor(cfg.get("monitor"), patch_px=cfg.student.patch_size)
        OmegaConf.update(cfg, "loader", asdict(run.loader), force_add=True)  # for the record, config.yaml
        run.first_iteration = strict.first_iteration(cfg, args, curriculum.total_iterations)
        logger.info("dinov2-noise: curriculum of %d stages", len(config.stages))
    elif any(cfg.get(name) is not None for name in ("step", "health", "monitor")):
        raise ConfigError(
            "the sections step, health and monitor need a curriculum; for plain DINOv2 one stage will do: "
            "curriculum: {stages: [{name: noisy, epochs: ${optim.epochs}, view: noisy}]}"
        )
    if hasattr(args, "eval_only") and (is_ours or strict.holds_curriculum(cfg)):  # only training has this option
        strict.check_output_folder(cfg)
        _check_before_training(cfg, run)
    has_loader = run is None and cfg.get("loader") is not None
    runtime.start(run, parse_loader(cfg.loader) if has_loader else runtime.UPSTREAMS_LOADER)
    if not torch.cuda.is_available():
        _use_fp32(cfg)


def _check_before_training(cfg: Any, run: runtime.Run | None) -> None:
    """Find what would stop the run later, before anything is written; one process of a job is enough."""
    is_known = cfg.train.dataset_path.split(":")[0] in data.DATASETS
    if run is not None:
        if not is_known:  # not even one of upstream's: it knows no stages
            data.parse_dataset_string(cfg.train.dataset_path)
        require_fast(cfg.train.dataset_path, run.loader.augmentation)
        require_denoised(cfg.train.dataset_path, run)
        _require_teacher_files(run)
        staged_schedules(ScheduleSettings.from_config(cfg), run.config)
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    if rank == "0" and is_known:
        data.make(cfg.train.dataset_path, knows_epoch=run is not None)
    if rank == "0" and run is not None:
        monitored.check(run)


def _require_teacher_files(run: runtime.Run) -> None:
    for stage in run.stages_with_teacher_files:
        path = "" if stage.anchor is None else stage.anchor.teacher
        if path and not Path(path).exists():
            raise CheckpointError(
                f"curriculum.stages[{stage.index}].anchor.teacher: {path!r} does not exist; name the weights of the "
                "teacher to be frozen, or leave it out to freeze the one of this run when the stage begins"
            )


def _is_guarded(cfg: Any) -> bool:
    raw = OmegaConf.to_container(cfg.optim, resolve=False)
    return isinstance(raw, dict) and f"${{{GUARD}:" in str(raw.get("scaling_rule"))


def _use_fp32(cfg: Any) -> None:
    """Half precision is for GPUs: PyTorch's CPU kernels are slow or missing in it."""
    for role in ("teacher", "student"):
        for part in cfg.compute_precision[role].values():
            for key in ("param_dtype", "reduce_dtype", "buffer_dtype"):
                part.mixed_precision[key] = "fp32"
    cfg.compute_precision.grad_scaler = False
    logger.info("dinov2-noise: no CUDA device, computing in fp32 on the CPU")
