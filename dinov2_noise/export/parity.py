"""Whether an exported backbone computes what the run's does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dinov2_noise.errors import CheckpointError
from dinov2_noise.export.formats import Forward

TOLERANCE = 1e-4
"""Of the largest absolute value of the tokens compared: libraries add up in different orders, in float32."""


@dataclass(frozen=True)
class Parity:
    """Of one pair of outputs.

    Attributes:
        images: what was shown. cls, patches: largest absolute difference. scale: largest absolute value of the run's
            tokens.
    """

    images: str
    cls: float
    patches: float
    scale: float

    @property
    def passes(self) -> bool:
        """Also False where a number is not finite."""
        return all(difference <= TOLERANCE * self.scale for difference in (self.cls, self.patches))

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def random_images(size_px: int) -> Tensor:
    """(3, 3, S, S), normal and independent: three, so that a batch is not taken for one image."""
    return torch.randn(3, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))


def compare(reference: Forward, exported: Forward, inputs: Mapping[str, Tensor]) -> list[Parity]:
    """One row per input.

    Args:
        reference: the run's backbone. exported: what was read back.
        inputs: name → normalised images (B, 3, S, S).

    Raises:
        CheckpointError: shapes differ, or a difference is larger than `TOLERANCE` allows; tells by how much.
    """
    found = [_row(name, images, reference(images), exported(images)) for name, images in inputs.items()]
    failed = [row for row in found if not row.passes]
    if failed:
        rows = "".join(
            f"\n  {row.images}: class token {row.cls:.2g}, patch tokens {row.patches:.2g}, where values reach "
            f"{row.scale:.3g}"
            for row in failed
        )
        raise CheckpointError(
            f"the exported backbone computes something else than the run's; largest differences:{rows}\n"
            f"Allowed is {TOLERANCE:g} of the largest value. Nothing was written. Please report it, with the output of "
            "`dinov2-noise doctor`; --to safetensors keeps upstream's own form"
        )
    return found


def _row(name: str, images: Tensor, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Parity:
    for kind, a, b in zip(("class", "patch"), ours, theirs, strict=True):
        if a.shape != b.shape:
            raise CheckpointError(
                f"the exported backbone gives {kind} tokens of shape {tuple(b.shape)}, the run's {tuple(a.shape)}; "
                "nothing was written"
            )
    cls, patches = (float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    return Parity(name, cls, patches, scale=max(float(tokens.abs().max()) for tokens in ours))
