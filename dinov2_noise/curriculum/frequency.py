"""What a stage changes in the images besides noise: the size of the crops, their frequencies, and random patches.

Source: "FastDINOv2: Frequency Based Curriculum Learning Improves Robustness and Training Speed", arXiv 2507.03779
(paper B): small crops first, which hold low frequencies only and cost less, then full ones with noise in a random
square. Departures: any stage may have any of these; an explicit low-pass and a blurred square are offered too; the
position grid is made for the last stage's crops and is interpolated in the stages before, by upstream's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from dinov2_noise.augment.low_pass import FILTERS, NYQUIST_CYCLES_PER_PX
from dinov2_noise.curriculum.ramps import Ramp, check_pair, ends
from dinov2_noise.curriculum.strict import choose
from dinov2_noise.errors import ConfigError

# Beyond them a number is taken for a slip: noise of more than the whole range is often one on the scale to 255.
MAX_SIGMA = 1.0
MAX_SIGMA_PX = 100.0


@dataclass(frozen=True)
class CropsConfig:
    """Side of a stage's crops in pixels, under upstream's names; ``None`` keeps the config's own."""

    global_crops_size: int | None = None
    local_crops_size: int | None = None


@dataclass(frozen=True)
class LowPassConfig:
    """Low-pass on all finished crops, see `dinov2_noise.augment.low_pass`: cut-off in cycles per pixel of the crop.

    ``kind``: one of ``FILTERS``. ``order``: of ``butterworth``.
    """

    cutoff_cycles_per_px: Ramp
    kind: str = "gaussian"
    order: int = 2


@dataclass(frozen=True)
class GaussianPatchConfig:
    """Noise in a random square of the student's image; its standard deviation, on [0, 1], is U(0, ``max_sigma``)."""

    max_sigma: Ramp


@dataclass(frozen=True)
class BlurPatchConfig:
    """Blur of a random square of the student's image; its standard deviation, in pixels, is U(0, ``max_sigma_px``)."""

    max_sigma_px: Ramp


class StageLike(Protocol):
    """The part of a stage's config that this module checks."""

    @property
    def name(self) -> str: ...
    @property
    def crops(self) -> CropsConfig | None: ...
    @property
    def low_pass(self) -> LowPassConfig | None: ...
    @property
    def gaussian_patch(self) -> GaussianPatchConfig | None: ...
    @property
    def blur_patch(self) -> BlurPatchConfig | None: ...


@dataclass(frozen=True)
class Crops:
    """Sides of global and local crops, and of the network's patches, in pixels."""

    global_px: int = 224
    local_px: int = 96
    patch_px: int = 16

    @classmethod
    def from_config(cls, cfg: Any) -> Crops:
        """Those of upstream's merged config."""
        sizes = (cfg.crops.global_crops_size, cfg.crops.local_crops_size, cfg.student.patch_size)
        return cls(*(int(size) for size in sizes))

    def of_stage(self, config: CropsConfig | None) -> Crops:
        """Those of a stage that sets ``config``, in a run with these."""
        if config is None:
            return self
        return Crops(
            config.global_crops_size or self.global_px, config.local_crops_size or self.local_px, self.patch_px
        )

    @property
    def patches_per_side(self) -> int:
        """Of a global crop."""
        return self.global_px // self.patch_px

    @property
    def shown(self) -> str:
        """For logs and messages."""
        return f"{self.global_px} and {self.local_px} px"


UPSTREAMS_CROPS = Crops()


def check_images(stage: StageLike, key: str) -> None:
    """Check what a stage does to the images, as far as it can be told without the rest of the config.

    Raises:
        ConfigError: a value out of its range, or one without effect; names the full key.
    """
    if stage.crops is not None:
        _check_crops(stage.crops, f"{key}.crops")
    if stage.low_pass is not None:
        _check_low_pass(stage.low_pass, f"{key}.low_pass")
    if stage.gaussian_patch is not None:
        _check_maximum(
            stage.gaussian_patch.max_sigma, MAX_SIGMA, "on the scale 0 to 1", f"{key}.gaussian_patch.max_sigma"
        )
    if stage.blur_patch is not None:
        _check_maximum(stage.blur_patch.max_sigma_px, MAX_SIGMA_PX, "in pixels", f"{key}.blur_patch.max_sigma_px")


def _check_crops(crops: CropsConfig, key: str) -> None:
    if crops == CropsConfig():
        names = " or ".join(entry.name for entry in fields(crops))
        raise ConfigError(f"{key} is empty: give {names}, or leave crops out")
    for entry in fields(crops):
        size = getattr(crops, entry.name)
        if size is not None and size < 1:
            raise ConfigError(f"{key}.{entry.name} is {size}: it must be at least 1 pixel")


def _check_low_pass(low_pass: LowPassConfig, key: str) -> None:
    cutoff = low_pass.cutoff_cycles_per_px
    check_pair(cutoff, f"{key}.cutoff_cycles_per_px")
    if not all(0 < end <= NYQUIST_CYCLES_PER_PX for end in ends(cutoff)):
        raise ConfigError(
            f"{key}.cutoff_cycles_per_px is {_plain(cutoff)}: a cut-off lies above 0 and at most at "
            f"{NYQUIST_CYCLES_PER_PX}, the highest frequency that pixels hold"
        )
    if ends(cutoff) == (NYQUIST_CYCLES_PER_PX, NYQUIST_CYCLES_PER_PX):
        raise ConfigError(
            f"{key} has no effect with the cut-off {NYQUIST_CYCLES_PER_PX}: lower it, or leave low_pass out"
        )
    choose(low_pass.kind, FILTERS, f"{key}.kind")
    if low_pass.order < 1:
        raise ConfigError(f"{key}.order is {low_pass.order}: it must be at least 1")
    if low_pass.kind != "butterworth" and low_pass.order != LowPassConfig.order:
        raise ConfigError(f"{key}.order has no effect: only butterworth has an order, kind is {low_pass.kind!r}")


def _check_maximum(ramp: Ramp, most: float, unit: str, key: str) -> None:
    check_pair(ramp, key)
    if not all(0 <= end <= most for end in ends(ramp)) or max(ends(ramp)) == 0:
        raise ConfigError(
            f"{key} is {_plain(ramp)}: the largest standard deviation of a patch, {unit}, lies above 0 and at most at "
            f"{most:g}; a ramp may begin or end at 0"
        )


def _plain(ramp: Ramp) -> str:
    return str(list(ramp)) if isinstance(ramp, tuple) else f"{ramp:g}"


def check_sides(crops: Crops, key: str) -> None:
    """Check that both crops divide into patches, and that the local one is not the larger.

    Args:
        key: where the sizes stand, such as ``crops``.

    Raises:
        ConfigError: they do not, or it is.
    """
    patch = crops.patch_px
    for name, size in (("global_crops_size", crops.global_px), ("local_crops_size", crops.local_px)):
        if size < patch or size % patch:
            below = size // patch * patch
            nearest = f"{below} or {below + patch}" if below else str(patch)
            raise ConfigError(f"{key}.{name} is {size}, not a multiple of student.patch_size, {patch}: take {nearest}")
    if crops.local_px > crops.global_px:
        raise ConfigError(
            f"{key}: local crops of {crops.local_px} px are larger than the global ones of {crops.global_px} px; lower "
            f"{key}.local_crops_size"
        )


def _check_content(stage: StageLike, crops: Crops, key: str) -> None:
    if stage.crops is not None and crops.patches_per_side == 1:
        raise ConfigError(
            f"{key}.crops.global_crops_size is {crops.global_px}, a single patch, of which iBOT can mask nothing: take "
            f"at least {2 * crops.patch_px}"
        )
    if stage.low_pass is None or stage.low_pass.kind != "ideal":
        return
    cutoff = min(ends(stage.low_pass.cutoff_cycles_per_px))
    if cutoff * crops.local_px < 1 - 1e-9:  # 49 times 1 / 49 is less than 1
        raise ConfigError(
            f"{key}.low_pass.cutoff_cycles_per_px of {cutoff:g} leaves a single colour of local crops of "
            f"{crops.local_px} px, whose lowest frequency is {1 / crops.local_px:.3g}: raise it, or take another kind "
            "than ideal"
        )


def check_crops(stages: Sequence[StageLike], own: Crops, key: str = "curriculum") -> None:
    """Check the stages' crops against those of the whole config, ``own``.

    Raises:
        ConfigError: crops that do not divide into patches, local crops larger than the global ones, crops of which
            nothing is left to learn from, or a last stage with other crops than ``own``, which the position grid is
            made for.
    """
    for index, stage in enumerate(stages):
        crops = own.of_stage(stage.crops)
        check_sides(crops, f"{key}.stages[{index}].crops")
        _check_content(stage, crops, f"{key}.stages[{index}]")
    last = own.of_stage(stages[-1].crops)
    if last != own:
        raise ConfigError(
            f"{key}.stages[{len(stages) - 1}].crops: the last stage has crops of {last.shown}, but the position grid "
            f"is made for those of the config, {own.shown}. Set crops.global_crops_size={last.global_px} and "
            f"crops.local_crops_size={last.local_px}, or end with a stage of the config's size"
        )
