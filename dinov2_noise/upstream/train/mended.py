"""What upstream's `SSLMetaArch` needs on torch 2.1 and later; the numbers stay upstream's.

``update_teacher`` and ``fsdp_synchronize_streams`` use attributes of FSDP that torch renamed in 2.1.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from dinov2_noise.weights import load_backbone, read

logger = logging.getLogger("dinov2")


class Mended:
    """What upstream needs on torch 2.1 and later; the numbers stay upstream's."""

    cfg: Any
    student: nn.ModuleDict
    teacher: nn.ModuleDict
    need_to_synchronize_fsdp_streams: bool

    def __init__(self, cfg: Any) -> None:
        source = cfg.student.pretrained_weights
        cfg.student.pretrained_weights = ""  # upstream's loading lets through what does not fit, or fails unclearly
        super().__init__(cfg)  # type: ignore[call-arg]
        cfg.student.pretrained_weights = source
        if source:
            report = load_backbone(self.student["backbone"], read(source))
            logger.info("dinov2-noise: the student starts from %s", report.table())

    def fsdp_synchronize_streams(self) -> None:
        """Upstream shares one set of streams; each FSDP root now waits for the current stream itself, so once is
        enough.
        """
        if self.need_to_synchronize_fsdp_streams and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.need_to_synchronize_fsdp_streams = False

    @torch.no_grad()
    def update_teacher(self, m: float) -> None:
        """EMA over the local shards: teacher = m * teacher + (1 - m) * student."""
        students: list[Tensor] = [p for part in self.student.values() for p in part.parameters()]
        teachers: list[Tensor] = [p for name in self.student for p in self.teacher[name].parameters()]
        torch._foreach_mul_(teachers, m)
        torch._foreach_add_(teachers, students, alpha=1 - m)
