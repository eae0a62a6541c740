"""What a run will do, in one block of text for the log's beginning: numbers that are otherwise spread over the config,
the launcher and the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dinov2_noise.curriculum.config import AnchorConfig, CurriculumConfig, StageConfig, ViewShares
from dinov2_noise.curriculum.frequency import UPSTREAMS_CROPS, Crops
from dinov2_noise.curriculum.ramps import shown
from dinov2_noise.curriculum.schedules import ScheduleSettings
from dinov2_noise.curriculum.sections import LoaderConfig, StepConfig


@dataclass(frozen=True)
class Setting:
    """What the config alone does not say of a run.

    ``n_images``: of the training set. ``batch_size``: images per step and process. ``world_size``: processes.
    ``precision``, ``attention``: in words. ``crops``: of the whole config. ``augmentation``:
    see `LoaderConfig`.
    """

    n_images: int
    batch_size: int
    world_size: int
    scaling_rule: str
    precision: str
    attention: str
    crops: Crops = UPSTREAMS_CROPS
    augmentation: str = LoaderConfig.augmentation

    @property
    def global_batch(self) -> int:
        """Images per optimizer step over all processes."""
        return self.batch_size * self.world_size


def of_run(
    cfg: Any,
    config: CurriculumConfig,
    step: StepConfig,
    loader: LoaderConfig,
    *,
    n_images: int,
    world_size: int,
    attention: str,
) -> str:
    """`describe` for upstream's merged config ``cfg``, once its scaling rule has set ``optim.lr``."""
    setting = Setting(
        n_images=n_images,
        batch_size=int(cfg.train.batch_size_per_gpu),
        world_size=world_size,
        scaling_rule=str(cfg.optim.scaling_rule),
        precision=precision(cfg.compute_precision),
        attention=attention,
        crops=Crops.from_config(cfg),
        augmentation=loader.augmentation,
    )
    return describe(config, ScheduleSettings.from_config(cfg), step, setting)


def describe(config: CurriculumConfig, settings: ScheduleSettings, step: StepConfig, setting: Setting) -> str:
    """One line per fact, the label first; a pass is as many images as the training set has."""
    length = settings.epoch_length_iterations
    rows = [
        ("images per step", _images_per_step(setting, step.micro_batches)),
        ("training set", f"{setting.n_images:,} images"),
        ("epoch", f"{length:,} iterations = {_passes(length, setting)} over the training set"),
        ("run", _length(settings.epochs, length, setting)),
    ]
    for index, stage in enumerate(config.stages):
        rows.append((f"stage {index}", f"{stage.name}: {_length(stage.epochs, length, setting)}"))
        rows.append(("", _stage(stage)))
        rows += [("", text) for text in _images(stage, config, setting.crops)]
    for first, last in _segments(config):
        stages = f"stage {first}" if first == last else f"stages {first}-{last}"
        of_stage = settings.for_stage(config.stages[first])
        rule = f"after the rule {setting.scaling_rule}"
        rows.append(("peak LR", f"{stages}: {of_stage.base_lr:g} in the config, {of_stage.lr:.3g} {rule}"))
    rows += [("precision", setting.precision), ("attention", setting.attention)]
    rows.append(("augmentation", setting.augmentation))
    return "dinov2-noise: this run\n" + "\n".join(f"  {label:15}  {text}" for label, text in rows)


def _images_per_step(setting: Setting, micro_batches: int) -> str:
    processes = f"{setting.world_size} process" + ("es" if setting.world_size > 1 else "")
    text = f"{setting.global_batch:,} = {processes} x {setting.batch_size}"
    if micro_batches == 1:
        return text
    return f"{text}, in {micro_batches} micro-batches of {setting.batch_size // micro_batches}"


def _passes(iterations: int, setting: Setting) -> str:
    return f"{iterations * setting.global_batch / setting.n_images:.3g} passes"


def _length(epochs: int, epoch_length: int, setting: Setting) -> str:
    iterations = epochs * epoch_length
    return f"{epochs:,} epochs = {iterations:,} iterations = {_passes(iterations, setting)}"


def _stage(stage: StageConfig) -> str:
    view = stage.view
    if isinstance(view, ViewShares):
        view = f"noisy {shown(view.noisy)} and denoised {shown(view.denoised)}"
    parts = [f"view {view}"]
    if stage.teacher_view != "noisy":
        parts.append(f"the teacher sees {stage.teacher_view}")
    if stage.restart:
        parts.append("restart")
    if stage.schedule_epochs is not None:
        parts.append(f"schedules of {stage.schedule_epochs:,} epochs")
    if stage.anchor is not None:
        parts.append(_anchor(stage.anchor))
    return ", ".join(parts)


def _images(stage: StageConfig, config: CurriculumConfig, crops: Crops) -> list[str]:
    """Sizes of the crops, where they differ between stages, and what else is done to the images."""
    parts = []
    if any(other.crops is not None for other in config.stages):
        parts.append(f"crops of {crops.of_stage(stage.crops).shown}")
    if stage.low_pass is not None:
        order = f" of order {stage.low_pass.order}" if stage.low_pass.kind == "butterworth" else ""
        cutoff = f"cut-off {shown(stage.low_pass.cutoff_cycles_per_px)} cycles per pixel"
        parts.append(f"low-pass ({stage.low_pass.kind}{order}, {cutoff})")
    if stage.gaussian_patch is not None:
        parts.append(f"noise patch (largest sigma {shown(stage.gaussian_patch.max_sigma)})")
    if stage.blur_patch is not None:
        parts.append(f"blur patch (largest sigma {shown(stage.blur_patch.max_sigma_px)} px)")
    return [", ".join(parts)] if parts else []


def _anchor(anchor: AnchorConfig) -> str:
    text = f"anchor {anchor.weight:g}"
    if anchor.final_weight is not None:
        text += f" to {anchor.final_weight:g} ({anchor.weight_schedule})"
    factors = {"DINO local": anchor.dino_local, "DINO global": anchor.dino_global, "iBOT": anchor.ibot}
    named = [f"{name} x {factor:g}" for name, factor in factors.items() if factor != 1]
    named.append(f"heads {anchor.heads}")
    named.append("teacher frozen at the switch" if anchor.teacher is None else f"teacher from {anchor.teacher}")
    return f"{text} ({', '.join(named)})"


def _segments(config: CurriculumConfig) -> list[tuple[int, int]]:
    """First and last stage of each set of schedules."""
    first = [index for index, stage in enumerate(config.stages) if index == 0 or stage.restart]
    return list(zip(first, [start - 1 for start in first[1:]] + [len(config.stages) - 1], strict=True))


def precision(section: Any) -> str:
    """Upstream's ``compute_precision`` in words; parts that compute alike are named together.

    Gradients are summed over processes in the student's ``reduce_dtype``.
    """
    parts: dict[str, list[str]] = {}
    for role in ("student", "teacher"):
        for name, part in section[role].items():
            parts.setdefault(str(part.mixed_precision.param_dtype), []).append(f"{role} {name}")
    if len(parts) == 1:
        text = f"{next(iter(parts))} throughout"
    else:
        text = "; ".join(f"{dtype}: {', '.join(names)}" for dtype, names in parts.items())
    reduced = sorted({str(part.mixed_precision.reduce_dtype) for part in section.student.values()})
    return f"{text}; gradients summed in {'/'.join(reduced)}; gradient scaler {'on' if section.grad_scaler else 'off'}"
