"""What a training will cost, told before it begins: counted FLOPs, and hours at a given or measured rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise import patching
from dinov2_noise.configs import config_file, register_guard
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.cost import Rate, RunCost, StageCost, describe, parse_rate
from dinov2_noise.curriculum.frequency import Crops, check_crops
from dinov2_noise.curriculum.sections import parse_step
from dinov2_noise.curriculum.stages import Curriculum, build
from dinov2_noise.errors import ConfigError, DinoNoiseError
from dinov2_noise.evaluation.upstream_results import TRAINING_FILE, read_training
from dinov2_noise.upstream.flops import StepCounter, student_output
from dinov2_noise.upstream.utils import options as stage_options
from dinov2_noise.upstream.utils import strict

_IMAGES_ON_CPU = 2  # of a measurement: enough to fill the matrix products of a CPU core
_LEAST_ROUNDS = 3


def estimate(
    config: str,
    options: Sequence[str] = (),
    *,
    processes: int = 1,
    rate: str | None = None,
    measure: bool = False,
    like: Path | None = None,
) -> str:
    """The text of ``dinov2-noise train CONFIG --estimate``.

    Args:
        config: path of a config, or the name of one of ours; ``options`` are ``key=value`` as in a training.
        processes: of the training, each with ``train.batch_size_per_gpu`` images.
        rate: FLOPs per second and process, as ``40TFLOPs``.
        measure: measure the rate on this machine.
        like: folder of a run, whose rate is taken.

    Raises:
        ConfigError: the config or the rate is wrong, more than one rate is asked for, or ``like`` holds no times.
        MissingFolderError: dinov2 cannot be imported.
    """
    if sum((rate is not None, measure, like is not None)) > 1:
        raise ConfigError("give one of --rate, --measure and --like")
    if processes < 1:
        raise ConfigError(f"--gpus is {processes}: a training has at least one process")
    found = parse_rate(rate) if rate is not None else None
    cfg = load(config, options)
    cost = cost_of(cfg, processes)
    if measure:
        found = measured_rate(cfg, cost)
    if like is not None:
        found = rate_of_run(like)
    return f"dinov2-noise: estimate of {config}, {cfg.student.arch}/{cfg.student.patch_size}\n\n{describe(cost, found)}"


def load(config: str, options: Sequence[str] = ()) -> Any:
    """Upstream's defaults, ``config`` and ``options`` as one checked config.

    Raises:
        ConfigError: an unknown or contradictory key, or no YAML; values that a training would still need, such as
            paths, may lack.
        MissingFolderError: dinov2 cannot be imported.
    """
    patching.find_init()
    from dinov2.configs import dinov2_default_config

    register_guard()
    path = config_file(config)
    theirs, of_stages = stage_options.split_options(options)
    try:
        own = OmegaConf.load(path)
        cfg: Any = OmegaConf.merge(dinov2_default_config, own, OmegaConf.from_dotlist(list(theirs)))
    except (YAMLError, OmegaConfBaseException, ValueError, TypeError) as cause:
        raise ConfigError(f"{path} and the options make no config: {' '.join(str(cause).split())}") from cause
    stage_options.apply_options(cfg, of_stages)
    if any(name in cfg for name in strict.OUR_SECTIONS):
        strict.check_keys(cfg, dinov2_default_config)
    strict.check_numbers(cfg)
    return cfg


def cost_of(cfg: Any, processes: int = 1) -> RunCost:
    """All stages of ``cfg``, and plain DINOv2 beside them."""
    curriculum, own, stages = curriculum_of(cfg), Crops.from_config(cfg), []
    length = cfg.train.OFFICIAL_EPOCH_LENGTH
    counter = StepCounter(cfg, parse_step(cfg.get("step"), batch_size=cfg.train.batch_size_per_gpu).micro_batches)

    def stage_cost(name: str, epochs: int, crops: Crops, *, anchored: bool) -> StageCost:
        flops = counter.step(crops, anchored=anchored)
        return StageCost(name, epochs, epochs * length, crops, cfg.crops.local_crops_number, flops)

    for stage in () if curriculum is None else curriculum.stages:
        epochs = stage.n_iterations // length
        stages.append(stage_cost(stage.name, epochs, stage.crops, anchored=stage.anchor is not None))
    plain = stage_cost("plain DINOv2", cfg.optim.epochs, own, anchored=False)
    return RunCost(stages or [plain], plain, cfg.train.batch_size_per_gpu, processes)


def curriculum_of(cfg: Any) -> Curriculum | None:
    """The stages of ``cfg`` in iterations, None without any.

    Raises:
        ConfigError: they are wrong; a frozen teacher's file may be left open.
    """
    if cfg.get("curriculum") is None:
        return None
    section: Any = OmegaConf.to_container(cfg.curriculum)
    for stage in section.get("stages") or ():
        if (
            isinstance(stage, dict)
            and isinstance(stage.get("anchor"), dict)
            and stage["anchor"].get("teacher") == "???"
        ):
            stage["anchor"]["teacher"] = "to be named"  # it costs the same
    config = parse_curriculum(section, total_epochs=cfg.optim.epochs)
    crops = Crops.from_config(cfg)
    check_crops(config.stages, crops)
    return build(config, cfg.train.OFFICIAL_EPOCH_LENGTH, crops)


def measured_rate(cfg: Any, cost: RunCost, least_s: float = 5.0) -> Rate:
    """FLOPs per second of the student's forward and backward pass on this machine, for each size of crops.

    Args:
        cfg: of `load`; ``cost``: of `cost_of`.
        least_s: seconds of measuring for each size, after one step for warming up; at least three steps are made.
    """
    from dinov2.models import build_model_from_cfg

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = cfg.compute_precision.student.backbone.mixed_precision.param_dtype
    half = {"fp16": torch.half, "bf16": torch.bfloat16}.get(dtype) if device.type == "cuda" else None
    n_images = cost.batch_size if device.type == "cuda" else min(cost.batch_size, _IMAGES_ON_CPU)
    n_images = max(n_images // int(OmegaConf.select(cfg, "step.micro_batches") or 1), 1)
    student = build_model_from_cfg(cfg)[0].to(device).train()
    rates = {}
    for crops in dict.fromkeys(stage.crops for stage in [*cost.stages, cost.plain]):

        def step(crops: Crops = crops) -> None:
            with torch.autocast(device.type, half, enabled=half is not None):
                output = student_output(student, cfg, crops, n_images, device)
            output.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        counter = StepCounter(OmegaConf.merge(cfg, {"train": {"batch_size_per_gpu": n_images}}))
        rates[crops] = sum(counter.backbone(crops)) / _median_seconds(step, least_s)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
    shown = ", ".join(f"{rate / 1e9:,.0f} with crops of {crops.shown}" for crops, rate in rates.items())
    return Rate(
        min(rates.values()),
        f"at the GFLOP/s of the backbone on this machine ({where}, {n_images} images): {shown}",
        rates,
    )


def _median_seconds(step: Callable[[], None], least_s: float) -> float:
    step()
    times: list[float] = []
    while len(times) < _LEAST_ROUNDS or sum(times) < least_s:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rate_of_run(folder: Path) -> Rate:
    """FLOPs per second and process in the run in ``folder``: its seconds per iteration, reading of images and all.

    The first logged line of each size of crops is left out where there are others: upstream logs means over 20
    iterations, and those hold the start of the run or steps of the stage before.

    Raises:
        ConfigError: there is no ``config.yaml``, or no line with a time in ``training_metrics.json``.
    """
    metrics, saved = folder / TRAINING_FILE, folder / "config.yaml"
    for path in (saved, metrics):
        if not path.is_file():
            raise ConfigError(f"{folder} is not the output folder of a run: {path.name} is not there")
    entries, cfg = _timed(metrics), load(str(saved))
    curriculum, cost = curriculum_of(cfg), cost_of(cfg)
    logged: dict[Crops, list[tuple[float, float]]] = {}
    for entry in entries:
        stage = cost.stages[0 if curriculum is None else curriculum.stage_at(int(entry["iteration"])).index]
        flops = stage.flops.total * cost.batch_size
        logged.setdefault(stage.crops, []).append((entry["iter_time"], flops / entry["iter_time"]))
    seconds, rates = (
        {crops: statistics.median(row[column] for row in rows[1:] or rows) for crops, rows in logged.items()}
        for column in (0, 1)
    )
    shown = ", ".join(f"{value:.3g} s with crops of {crops.shown}" for crops, value in seconds.items())
    return Rate(min(rates.values()), f"at the speed of the run in {folder}, per iteration {shown}", rates)


def _timed(metrics: Path) -> list[dict[str, float]]:
    """Logged iterations that took time."""
    try:
        entries = read_training(metrics)
    except DinoNoiseError as cause:
        raise ConfigError(f"no speed to be had from this run: {cause}") from cause
    timed = [entry for entry in entries if entry["iteration"] >= 0 and entry.get("iter_time", 0.0) > 0]
    if not timed:
        raise ConfigError(f"{metrics} holds no iter_time: is it that of a training?")
    return timed
