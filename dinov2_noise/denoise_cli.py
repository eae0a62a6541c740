"""``dinov2-noise denoise …``: train a self-supervised denoiser, and apply it or any other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from dinov2_noise.command_line import Range, Shard, SkipBad, arguments_again
from dinov2_noise.errors import ConfigError

denoise_app = typer.Typer(no_args_is_help=True, help="Train a self-supervised denoiser on noisy images, and apply it.")

_ELSEWHERE = ("gpus", "slurm", "nodes", "slurm_option")  # where a command runs, not what it does
_SLURM_CPUS, _SLURM_MINUTES = 8, 24 * 60  # of a job, unless options say otherwise
_JOB_NAME = "job.json"
_NOT_SETTINGS = ("noisy", "output", "config", *_ELSEWHERE)  # of `denoise train`; all else may stand in its config file

Gpus = Annotated[int, typer.Option(help="Processes on this machine (under --slurm: on each), one per GPU.")]


@denoise_app.command("train")
def denoise_train(
    context: typer.Context,
    noisy: Annotated[
        str, typer.Argument(help="Folder of noisy images, or a dataset string: ImageNet:split=TRAIN:root=…")
    ],
    output: Annotated[Path, typer.Argument(help="New folder for weights, config, loss log and pictures.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these options, which win over it; a run's config.yaml.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 100,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Crops per step, of all processes together.")] = 4,
    crop: Annotated[
        int, typer.Option(help="Side of the random crops in pixels, a multiple of 64 times --stride.")
    ] = 256,
    lr: Annotated[float, typer.Option(help="Initial learning rate.")] = 3e-4,
    n_feature: Annotated[int, typer.Option(help="Width of the network.")] = 48,
    residual: Annotated[
        bool, typer.Option("--residual/--no-residual", help="Predict the noise instead of the image: starts faster.")
    ] = False,
    stride: Annotated[
        int, typer.Option(help="2 or more for correlated noise: take every 2nd pixel for neighbours.")
    ] = 1,
    ema: Annotated[float | None, typer.Option(help="Keep a running mean of the weights of this decay: 0.999.")] = None,
    precision: Annotated[str, typer.Option(help="fp32; bf16 or fp16 for autocast, on a GPU.")] = "fp32",
    seed: Annotated[int, typer.Option(help="Seed of weights, crops and --per-class.")] = 0,
    per_class: Annotated[
        int | None,
        typer.Option("--per-class", "--images-per-class", help="At most so many images of each class or folder."),
    ] = None,
    min_side: Annotated[int | None, typer.Option(help="Leave out images with a side below, in pixels.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Leave out images with a side above, in pixels.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes that load images; by default 0 on a CPU. The result is the same.")
    ] = None,
    sample_every: Annotated[
        int | None, typer.Option(help="Steps between two pictures; 0 for none; by default about 20 in all.")
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Folder of noisy images on which PSNR is measured; needs the next option.")
    ] = None,
    validation_clean: Annotated[str | None, typer.Option(help="Their clean versions; only for measuring.")] = None,
    values: Range = "dtype",
    skip_bad: SkipBad = 0,
    gpus: Gpus = 1,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit it as a SLURM job.")] = False,
    nodes: Annotated[int, typer.Option(help="Machines, under --slurm.")] = 1,
    slurm_option: Annotated[
        list[str] | None, typer.Option(help="key=value for sbatch, such as partition=gpu; repeatable.")
    ] = None,
) -> None:
    """Train Neighbor2Neighbor on noisy images alone. The defaults are the published ones."""
    from dinov2_noise.denoise import train_denoiser
    from dinov2_noise.denoise.parallel import Processes
    from dinov2_noise.denoise.settings import as_arguments, merge_settings

    given = [name for name in context.params if name not in _NOT_SETTINGS and _is_typed(context, name)]
    own = {name: context.params[name] for name in given}
    settings = as_arguments(merge_settings(config, own))
    if slurm or gpus > 1:
        _require_even_shares(settings, processes=nodes * gpus)
    if slurm:
        _submit(context, output, nodes=nodes, gpus=gpus, options=slurm_option or [])
        return
    if nodes > 1 or slurm_option:
        raise typer.BadParameter("they belong to --slurm", param_hint="--nodes, --slurm-option")
    if gpus > 1:
        _run_in_processes(context, gpus)
        return
    weights = train_denoiser(noisy, output, **settings)
    if Processes.from_environment().is_first:
        print(f"weights: {weights}")


@denoise_app.command("apply")
def denoise_apply(
    context: typer.Context,
    noisy: Annotated[Path, typer.Argument(help="Folder of noisy images.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the denoised images (PNG).")],
    weights: Annotated[Path | None, typer.Option(help="denoiser.pth of `denoise train`, or published weights.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Any other denoiser, instead: module:factory; the current folder is importable.")
    ] = None,
    model_option: Annotated[
        list[str] | None, typer.Option(help="key=value for the factory, the value in YAML; repeatable.")
    ] = None,
    padding: Annotated[
        str, typer.Option(help="sides: each to its own multiple of 32 px; square: both to one, as published.")
    ] = "sides",
    max_pixels: Annotated[
        int | None, typer.Option(help="Pixels of a forward pass; larger images go in tiles. By default 4,194,304.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32; bf16 or fp16 for autocast, on a GPU.")] = "fp32",
    debias: Annotated[
        str | None, typer.Option(help="Undo the clipped noise's loss of contrast: a noise such as gauss255, or auto.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per forward pass; by default 16 on a GPU, about one on a CPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out all images that cannot be read, however many.")
    ] = False,
    skip_bad: SkipBad = 0,
    values: Range = "dtype",
    shard: Shard = "1/1",
    gpus: Gpus = 1,
) -> None:
    """Denoise every image of a folder, with weights or any other denoiser."""
    from dinov2_noise.files import parse_shard, read_manifest

    part = parse_shard(shard)
    if gpus > 1:
        _run_in_processes(context, gpus)
        return
    from dinov2_noise.decoding import parse_range
    from dinov2_noise.denoise import apply_denoiser
    from dinov2_noise.denoise.models import parse_options
    from dinov2_noise.denoise.parallel import Processes

    count = apply_denoiser(
        noisy,
        destination,
        weights=weights,
        model_factory=model,
        model_options=parse_options(model_option or []),
        padding=padding,
        max_pixels=max_pixels,
        precision=precision,
        debias=debias,
        batch_size=batch_size,
        device=device,
        shard=part,
        skip_unreadable=skip_unreadable,
        skip_bad=skip_bad,
        values=parse_range(values),
    )
    if Processes.from_environment().is_first:
        rest = "" if read_manifest(destination)["complete"] else "; not complete yet: other shards are missing"
        print(f"{destination}: {count} images written{rest}")


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether the command line gives an option, as against its default. (typer brings a copy of click of its own.)"""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _require_even_shares(settings: Mapping[str, Any], processes: int) -> None:
    """Tell at once, and one time, what each process of a training would stop with.

    Raises:
        ConfigError: a value is out of range, or the batch cannot be shared out evenly.
    """
    from neighbor2neighbor import TrainingConfig

    names = {field.name for field in fields(TrainingConfig)}
    try:
        TrainingConfig(**{name: value for name, value in settings.items() if name in names}).share(processes)
    except ValueError as cause:
        raise ConfigError(f"denoise train: {cause}") from cause


def _run_in_processes(context: typer.Context, gpus: int) -> None:
    """Start this command again as several processes of this machine.

    Raises:
        ConfigError: there are fewer GPUs, or a launcher has started several processes already.
        LaunchError: one of them failed.
    """
    import torch

    from dinov2_noise.denoise.parallel import Processes
    from dinov2_noise.launch import run_in_processes

    started = Processes.from_environment().world_size
    if started > 1:
        raise ConfigError(f"--gpus {gpus}: the launcher has started {started} processes already; leave --gpus out")
    if context.params.get("device", "auto") != "cpu" and 0 < torch.cuda.device_count() < gpus:
        raise ConfigError(f"--gpus {gpus}: there are only {torch.cuda.device_count()} on this machine")
    run_in_processes(["denoise", *arguments_again(context, without=_ELSEWHERE)], gpus)


def _submit(context: typer.Context, output: Path, *, nodes: int, gpus: int, options: Sequence[str]) -> None:
    """Submit this command as a SLURM job; scripts and logs go beside ``output``, which may not hold foreign files.

    Raises:
        LaunchError: there is no SLURM here, a job for this output waits or runs, or ``sbatch`` refuses.
        ConfigError: an option is not of the form ``key=value``.
    """
    from dinov2_noise.files import write_json
    from dinov2_noise.slurm import CommandJob, parse_options, require_slurm, submit_job

    require_slurm()
    folder = output.absolute().with_name(f"{output.absolute().name}-slurm")
    _require_not_queued(folder / _JOB_NAME, output)
    parameters = {
        "job_name": f"denoise-{output.absolute().name}",
        "nodes": nodes,
        "ntasks_per_node": gpus,
        "gpus_per_node": gpus,
        "cpus_per_task": _SLURM_CPUS,
        "time": _SLURM_MINUTES,
    }
    job = CommandJob(_run, arguments_again(context, without=_ELSEWHERE))
    number = submit_job(job, folder, parameters, parse_options(options), what="denoise train")
    write_json(folder / _JOB_NAME, {"job_id": number})
    print(f"submitted as job {number}; logs: {folder}")


def _require_not_queued(note: Path, output: Path) -> None:
    from dinov2_noise.launch import LaunchError
    from dinov2_noise.slurm import queued_ids

    if not note.is_file():
        return
    number = str(json.loads(note.read_text(encoding="utf-8"))["job_id"])
    if number in queued_ids():
        raise LaunchError(
            f"job {number} trains {output} already, or waits for it: let it end, or stop it with `scancel {number}`"
        )


def _run(arguments: Sequence[str]) -> None:
    """A command of this file, as one task of a SLURM job runs it."""
    denoise_app([*arguments], standalone_mode=False)
