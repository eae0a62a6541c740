"""A run of three stages, with small crops, with a low-pass and with patches, and the loader upstream makes for it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf

from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.curriculum.frequency import Crops, check_crops
from dinov2_noise.curriculum.sections import LoaderConfig
from dinov2_noise.curriculum.stages import build
from dinov2_noise.upstream import runtime

BATCH, LENGTH, SEED = 4, 3, 7
# An odd number of patches, where the order of upstream's divisions tells.
SMALL = {"global_crops_size": 40, "local_crops_size": 16}
FULL = {"global_crops_size": 64, "local_crops_size": 32}
SCALES = ((0.32, 1.0), (0.05, 0.32), 3)
STAGES = [
    {"name": "low", "epochs": 1, "view": "noisy", "crops": SMALL},
    {"name": "filtered", "epochs": 1, "view": "noisy", "low_pass": {"cutoff_cycles_per_px": [0.1, 0.3]}},
    {"name": "full", "epochs": 1, "view": "noisy", "restart": True, "gaussian_patch": {"max_sigma": 0.5}},
]


def start(augmentation: str = "upstream") -> None:
    """Make it the run of this process; one epoch of three iterations per stage."""
    from dinov2.configs import dinov2_default_config

    config = parse_curriculum({"stages": STAGES}, total_epochs=3)
    own = {
        "train": {"batch_size_per_gpu": BATCH, "seed": SEED, "OFFICIAL_EPOCH_LENGTH": LENGTH},
        "optim": {"epochs": 3},
        "crops": FULL,
        "student": {"patch_size": 8},
    }
    cfg = OmegaConf.merge(dinov2_default_config, own)
    crops = Crops.from_config(cfg)
    check_crops(config.stages, crops)
    loader = LoaderConfig(augmentation)
    runtime.start(runtime.Run(cfg, config, build(config, LENGTH, crops), loader=loader))


def augmentation(**sizes: int) -> Any:
    from dinov2.data.augmentations import DataAugmentationDINO

    return DataAugmentationDINO(*SCALES, **sizes)


def masks(img_size: int, patch_size: int = 8) -> dict[str, Any]:
    """As upstream's `do_train` makes them."""
    from dinov2.data import MaskingGenerator

    return {
        "n_tokens": (img_size // patch_size) ** 2,
        "mask_generator": MaskingGenerator(
            input_size=(img_size // patch_size, img_size // patch_size),
            max_num_patches=0.5 * img_size // patch_size * img_size // patch_size,
        ),
    }


def loader(dataset_str: str, num_workers: int, start_iteration: int = 0) -> Any:
    """As `do_train` builds it, for the config's own sizes."""
    from dinov2.data import SamplerType, collate_data_and_cast, make_data_loader, make_dataset

    collate = partial(
        collate_data_and_cast, mask_ratio_tuple=(0.1, 0.5), mask_probability=0.5, dtype=torch.float32, **masks(64)
    )
    return make_data_loader(
        dataset=make_dataset(dataset_str=dataset_str, transform=augmentation(**FULL), target_transform=lambda _: ()),
        batch_size=BATCH,
        num_workers=num_workers,
        shuffle=True,
        seed=start_iteration,
        sampler_type=SamplerType.SHARDED_INFINITE,
        drop_last=True,
        collate_fn=collate,
    )
