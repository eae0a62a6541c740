"""The folder of a run whose network was never trained, as `evaluate …` takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from short_vit import vit_short


@contextmanager
def untrained_run(folder: Path, patch_size: int = 16, seed: int = 0) -> Iterator[Path]:
    """``config.yaml`` and the teacher in ``eval/training_9`` of a ViT of 3 blocks, which upstream knows inside."""
    from dinov2.models import vision_transformer

    from dinov2_noise.upstream.backbone import build_backbone

    student = {"arch": "vit_short", "patch_size": patch_size, "block_chunks": 0, "layerscale": 1.0}
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"student": student, "train": {"seed": 5}}), folder / "config.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision_transformer, "vit_short", vit_short, raising=False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            state = build_backbone(str(folder / "config.yaml")).state_dict()
        teacher = folder / "eval" / "training_9" / "teacher_checkpoint.pth"
        teacher.parent.mkdir(parents=True)
        torch.save({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, teacher)
        yield folder
