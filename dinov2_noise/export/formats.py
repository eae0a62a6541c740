"""What an export format is: how it is written, how it is read back, and how a user loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from dinov2_noise.export.preprocessing import Preprocessing
from dinov2_noise.upstream.portable import Portable

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Normalised images (B, 3, S, S) → class token (B, D) and patch tokens (B, N, D), after the final norm."""


@dataclass(frozen=True)
class Exported:
    """What is exported.

    Attributes:
        backbone: upstream's vision transformer, on the CPU. portable: the same for one size of images.
        preprocessing: for that size.
    """

    backbone: nn.Module
    portable: Portable
    preprocessing: Preprocessing


class Write(Protocol):
    """Writes its files into an existing folder; not the model card."""

    def __call__(self, model: Exported, folder: Path, /) -> None: ...


@dataclass(frozen=True)
class Format:
    """One value of ``--to``.

    Attributes:
        title: for people. library: as the header of a model card names it.
        require: raises ConfigError where a library is missing.
        write: see `Write`. read: opens what was written, as its users do, on the CPU.
        completes: keys of ``student`` that describe what is written where the run's do not: of what the backbone lacks
            some formats must hold something that changes no result.
        loading: Python for the model card, run beside the files; reads ``image.png``, leaves ``cls`` and ``patches``.
    """

    title: str
    library: str
    require: Callable[[], object]
    write: Write
    read: Callable[[Path], Forward]
    loading: str
    completes: Mapping[str, Any] = field(default_factory=dict)
