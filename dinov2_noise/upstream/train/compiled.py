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
            n_sizes = len({stage.crops for stage in self._run.curriculum.stages}) + self._run.monitor.enabled
            n_blocks = compile_blocks(self, n_sizes)
            logger.info("dinov2-noise: %d blocks are compiled, the first steps take longer", n_blocks)
        super().prepare_for_distributed_training()  # type: ignore[misc]


def compile_blocks(model: Any, n_sizes: int = 1) -> int:
    """Compile every block below ``model``, in place, for crops of ``n_sizes`` different sizes; how many there are."""
    import torch._dynamo.config as dynamo  # takes a second to import
    from dinov2.layers.block import Block

    blocks = [part for part in model.modules() if isinstance(part, Block)]
    # Blocks share their code, and of one code torch keeps 8 versions at most by default: after that it goes on
    # uncompiled, with a warning. Student, teacher and frozen teacher need up to 4 per size, each block its own where
    # drop path is not uniform. The names are those of torch 2.4; later ones are aliases of them.
    for name in ("cache_size_limit", "accumulated_cache_size_limit"):
        setattr(dynamo, name, max(getattr(dynamo, name), 4 * len(blocks) * n_sizes))
    for block in blocks:
        # The sizes of a run's batches and crops are fixed, and the kernels for known sizes are better.
        block.compile(dynamic=False)
    return len(blocks)
