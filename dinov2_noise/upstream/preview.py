"""The crops of one sample as the model sees them, made by upstream's own data pipeline, as images a person can look
at.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from dinov2_noise import data
from dinov2_noise.augment.views import StagedViews
from dinov2_noise.configs import register_guard
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.frequency import Crops, check_crops
from dinov2_noise.curriculum.sampler import CurriculumSampler, Draw
from dinov2_noise.curriculum.sections import parse_loader
from dinov2_noise.curriculum.stages import build
from dinov2_noise.upstream.data.loaders import require_fast

# Of upstream's normalisation (dinov2/data/transforms.py).
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def crops(
    config_file: Path, *, index: int, stage: int, number: int = 0, iteration: int | None = None
) -> Mapping[str, list[Image.Image]]:
    """Crops of training sample ``index`` in ``stage``, for the sample number ``number`` of the run.

    Args:
        iteration: of the run, where ramps within the stage are read; None for the stage's first.

    Returns:
        ``global_crops``, ``local_crops`` and, in an anchored stage, ``global_crops_anchor``.
    """
    preview = Preview(config_file)
    shown = preview.curriculum.stages[stage]
    view = "denoised" if shown.view == "denoised" else "noisy"
    return preview.crops(Draw(index, stage, number, view, shown.first_iteration if iteration is None else iteration))


class Preview:
    """The training set, the stages and the augmentation of a saved config.

    Raises:
        ConfigError: the config is of another version, or contradicts itself.
        DatasetStringError, MissingFolderError: the training set is not there.
    """

    def __init__(self, config_file: Path) -> None:
        from dinov2.configs import dinov2_default_config
        from dinov2.data.augmentations import DataAugmentationDINO

        register_guard()
        cfg: Any = OmegaConf.merge(dinov2_default_config, OmegaConf.load(config_file))
        config = parse_curriculum(cfg.curriculum, total_epochs=cfg.optim.epochs)
        transform = DataAugmentationDINO(
            cfg.crops.global_crops_scale,
            cfg.crops.local_crops_scale,
            cfg.crops.local_crops_number,
            global_crops_size=cfg.crops.global_crops_size,
            local_crops_size=cfg.crops.local_crops_size,
        )
        transform.augmentation = parse_loader(cfg.get("loader")).augmentation
        require_fast(cfg.train.dataset_path, transform.augmentation)
        sizes = Crops.from_config(cfg)
        check_crops(config.stages, sizes)
        self.curriculum = build(config, cfg.train.OFFICIAL_EPOCH_LENGTH, sizes)
        self.dataset: Any = data.make(cfg.train.dataset_path, transform, None, knows_epoch=True)
        self._batch_size, self._seed = cfg.train.batch_size_per_gpu, cfg.train.seed
        self._views = StagedViews(self.curriculum, self._seed)

    def first_draws(self, stage: int, count: int, *, world_size: int = 1) -> list[Draw]:
        """The first ``count`` samples that the process of rank 0 draws in ``stage``, of at most one batch."""
        sampler = CurriculumSampler(
            sample_count=len(self.dataset),
            batch_size=self._batch_size,
            curriculum=self.curriculum,
            seed=self._seed,
            start_iteration=self.curriculum.stages[stage].first_iteration,
            world_size=world_size,
        )
        return list(islice(sampler, min(count, self._batch_size)))

    def crops(self, draw: Draw) -> Mapping[str, list[Image.Image]]:
        """What `crops` returns, of a draw."""
        sample = self._views(self.dataset, draw)
        names = ("global_crops", "local_crops", "global_crops_anchor")
        return {name: [_to_image(crop) for crop in sample[name]] for name in names if name in sample}


def _to_image(crop: torch.Tensor) -> Image.Image:
    """(3, H, W), normalised → RGB image."""
    pixels = ((crop * _STD + _MEAN).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
