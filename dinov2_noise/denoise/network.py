"""The denoiser at work on batches: precision, memory, correction, rounding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dinov2_noise.denoise.models import Denoiser
from dinov2_noise.errors import ConfigError, DinoNoiseError
from neighbor2neighbor import DenoiserOutputError, denoise_padded, padded_size, reflect_to, to_uint8
from neighbor2neighbor.padding import PADDINGS, side_multiple_px
from neighbor2neighbor.tiles import MAX_PIXELS, smallest_pass

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_BATCH_IMAGES = 16
# torch's allocator; oneDNN and cuDNN, whose workspaces did not fit
_NO_MEMORY = ("can't allocate memory", "could not create a primitive", "CUDNN_STATUS_ALLOC_FAILED")
# On a CPU larger passes are no faster, and small images alone are slower.
_CPU_BATCH_PIXELS = 2**16


@dataclass(frozen=True)
class ApplySettings:
    """How images go through the network.

    Attributes:
        padding: ``sides`` or ``square``; see `neighbor2neighbor.padded_size`.
        max_pixels: of a pass; see `neighbor2neighbor.denoise_padded`.
        precision: ``fp32``, or ``bf16`` or ``fp16`` by autocast.
        batch_size: images of a pass at most; None: 16, on a CPU as many as have 65,536 pixels.

    Raises:
        ConfigError: a value is out of range.
    """

    padding: str = "sides"
    max_pixels: int = MAX_PIXELS
    precision: str = "fp32"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("padding", self.padding, PADDINGS),
            ("precision", self.precision, tuple(PRECISIONS)),
        ):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is unknown: use {', '.join(known)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")

    def identity(self) -> dict[str, str]:
        """What decides the result, for the manifest; defaults are left out, as in older manifests.

        ``max_pixels`` is not among it: from about a million on it changes nothing, and a run that was short of memory
        must be able to go on with less.
        """
        values = {"padding": self.padding, "precision": self.precision}
        return {name: value for name, value in values.items() if value != getattr(ApplySettings, name)}


class Network:
    """A denoiser on its device.

    Attributes:
        max_pixels: of a pass; less than it was set to after the memory did not suffice.
        correction: applied to what the network returns, clipped to [0, 1].

    Raises:
        ConfigError: ``max_pixels`` is less than the smallest tile, or the denoiser's ``side_multiple_px`` is no size.
    """

    def __init__(self, denoiser: Denoiser, device: torch.device, settings: ApplySettings) -> None:
        self.denoiser = denoiser
        self.module = denoiser.module.to(device)
        self.device = device
        self.settings = settings
        try:
            self.multiple_px = side_multiple_px(self.module)
        except ValueError as cause:
            raise ConfigError(f"denoiser {denoiser.label}: {cause}") from cause
        self.max_pixels = settings.max_pixels
        self.correction: Callable[[Tensor], Tensor] | None = None
        if self.max_pixels < smallest_pass(self.multiple_px):
            raise ConfigError(
                f"max_pixels must be at least {smallest_pass(self.multiple_px)} (the smallest tile), "
                f"got {self.max_pixels}"
            )

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that an image of this (width, height) gets."""
        return padded_size(size[1], size[0], multiple_px=self.multiple_px, padding=self.settings.padding)

    def batch_limit(self, padded: tuple[int, int]) -> int:
        """Images of this padded height and width that go together."""
        pixels = padded[0] * padded[1]
        most = self.settings.max_pixels
        if self.settings.batch_size is None and self.device.type == "cpu":
            most = min(most, _CPU_BATCH_PIXELS)
        return max(1, min(self.settings.batch_size or _BATCH_IMAGES, most // pixels))

    def pad(self, image: Tensor) -> Tensor:
        """``(3, H, W)`` of any type -> ``(3, h, w)``."""
        height, width = image.shape[-2:]
        return reflect_to(image, self.padded_size((width, height)))

    def denoise(self, images: Sequence[Tensor], sources: Sequence[Path]) -> Tensor:
        """Padded images uint8 ``(3, h, w)`` -> denoised ones, uint8 ``(B, h, w, 3)`` on the CPU.

        Args:
            images: of equal size.
            sources: where they come from, for messages.

        Raises:
            DinoNoiseError: the denoiser returns another shape or values that are not finite, or an image does not fit
                into memory in the smallest tiles, or another's denoiser fails.
        """
        batch = torch.stack(list(images))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return self._run(self._eight_bits, batch, sources).permute(0, 2, 3, 1).contiguous().cpu()

    def restored(self, image: Tensor) -> Tensor:
        """Denoise one image ``(3, H, W)``, float in [0, 1], without the correction: the same on the CPU, in [0, 1].

        Raises:
            DinoNoiseError: as for `denoise`.
        """
        height, width = image.shape[-2:]
        output = self._run(
            self.forward, self.pad(image)[None].to(self.device), ["an image of which the noise is fitted"]
        )
        return output[0, :, :height, :width].clamp(0, 1).cpu()

    def _run(self, run: Callable[[Tensor], Tensor], batch: Tensor, sources: Sequence[Path | str]) -> Tensor:
        try:
            return self._within_memory(run, batch, sources)
        except DenoiserOutputError as cause:
            raise DinoNoiseError(f"cannot denoise {sources[cause.index or 0]}: {cause}") from cause
        except Exception as cause:
            if self.denoiser.is_own or isinstance(cause, DinoNoiseError):
                raise
            raise DinoNoiseError(
                f"denoiser {self.denoiser.label} cannot denoise {sources[0]}: {type(cause).__name__}: {cause}"
            ) from cause

    def _within_memory(self, run: Callable[[Tensor], Tensor], batch: Tensor, sources: Sequence[Path | str]) -> Tensor:
        """One pass; where memory does not suffice, with fewer pixels at a time, from then on."""
        before = self.max_pixels
        while True:
            try:
                output = run(batch)
                break
            except (RuntimeError, MemoryError) as cause:
                if not is_out_of_memory(cause):
                    raise
                reason = str(cause).partition("\n")[0]
            # Outside of the except clause, whose traceback keeps the failed pass's tensors alive.
            self._halve(batch.shape[0] * batch.shape[-2] * batch.shape[-1], sources, reason)
        if self.max_pixels < before:
            print(
                f"denoise apply: {sources[0]} did not fit into memory; going on with {self.max_pixels} pixels per "
                f"pass. From the start: --max-pixels {self.max_pixels}",
                file=sys.stderr,
            )
        return output

    def _halve(self, pixels: int, sources: Sequence[Path | str], reason: str) -> None:
        smallest, used = smallest_pass(self.multiple_px), min(self.max_pixels, pixels)
        if used <= smallest:
            raise DinoNoiseError(
                f"cannot denoise {sources[0]}: out of memory even for {used} pixels at a time ({reason}); free memory, "
                "or use another device"
            )
        self.max_pixels = max(smallest, used // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _eight_bits(self, batch: Tensor) -> Tensor:
        output = self.forward(batch.float() / 255)
        return to_uint8(output if self.correction is None else self.correction(output.clamp(0, 1)))

    def forward(self, batch: Tensor) -> Tensor:
        """Padded images ``(B, 3, h, w)``, float in [0, 1] -> what the module makes of them, as float32."""
        # Modules of others may rely on the default layout.
        layout = torch.channels_last if self.denoiser.is_own else torch.contiguous_format
        batch = batch.contiguous(memory_format=layout)
        dtype = PRECISIONS[self.settings.precision]
        casting: AbstractContextManager[object] = nullcontext()
        if dtype is not None:
            casting = torch.autocast(self.device.type, dtype=dtype)
        with casting:
            return denoise_padded(self.module, batch, max_pixels=self.max_pixels).float()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: on a GPU a type of its own, on a CPU a RuntimeError with certain words."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in _NO_MEMORY)
