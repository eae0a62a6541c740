"""`SSLMetaArch` with the blocks of its backbones under `torch.compile`: ``step.compile``.

Each block is compiled in place, before FSDP wraps it: names in checkpoints stay, and a run may be continued with the
option on or off. Compilation happens at the first step, and anew where crops change their size.
"""

from __future__ import annotations

import logging
from typing import Any

from dinov2_noise.upstream import runtime

logger = logging.getLogger("dinov2")


class Compiled:
    """Compiles the student's, the teacher's and the frozen teacher's blocks where ``step.compile`` asks for it."""

    _run: runtime.Run | None

    def prepare_for_distributed_training(self) -> None:
        """As below, after the blocks."""
        if self._run is not None and self._run.step.compile:
            logger.info("dinov2-noise: %d blocks are compiled, the first steps take longer", compile_blocks(self))
        super().prepare_for_distributed_training()  # type: ignore[misc]


def compile_blocks(model: Any) -> int:
    """Compile every block below ``model``, in place; how many there are."""
    from dinov2.layers.block import Block

    blocks = [part for part in model.modules() if isinstance(part, Block)]
    for block in blocks:
        # The sizes of a run's batches and crops are fixed, and the kernels for known sizes are better.
        block.compile(dynamic=False)
    return len(blocks)
