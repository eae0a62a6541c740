"""What upstream's `SSLMetaArch` needs on torch 2.1 and later; the numbers stay upstream's.

``update_teacher`` and ``fsdp_synchronize_streams`` use attributes of FSDP that torch renamed in 2.1.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dinov2_noise.upstream import runtime
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
        run = runtime.current()
        if source and (run is None or run.first_iteration == 0):  # a resumed run has them in its checkpoint
            weights = read(source)
            report = load_backbone(self.student["backbone"], weights)
            logger.info("dinov2-noise: the student starts from %s", report.table())
            if run is not None:  # upstream itself loads the backbone only
                self._take_heads(weights.rest)

    def _take_heads(self, rest: Mapping[str, Tensor]) -> None:
        """Heads and loss centers of the file, where it holds them in this config's sizes; else they start afresh."""
        for name, loss in (("dino_head", "dino_loss"), ("ibot_head", "ibot_patch_loss")):
            if name not in self.student:
                continue
            own = self.student[name].state_dict()
            found = {k.removeprefix(f"{name}."): v for k, v in rest.items() if k.startswith(f"{name}.")}
            fits = own.keys() == found.keys() and all(own[key].shape == found[key].shape for key in own)
            if fits:
                self.student[name].load_state_dict(found)
            logger.info("dinov2-noise: %s %s", name, "from the file too" if fits else "starts afresh")
            shared = [loss] if "ibot_head" in self.student else ["dino_loss", "ibot_patch_loss"]
            for center in (f"{part}.center" for part in shared if fits and hasattr(self, part)):
                if center in rest:
                    getattr(self, center.split(".")[0]).center.copy_(rest[center])

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
