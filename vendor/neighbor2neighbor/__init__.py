"""Neighbor2Neighbor: learn to denoise from single noisy images.

Written from the paper: Huang, Li, Jia, Lu, Liu, "Neighbor2Neighbor: Self-Supervised Denoising from Single Noisy
Images", CVPR 2021, arXiv 2101.02824. Needs torch and NumPy only.
"""

from neighbor2neighbor.application import denoise_batch, denoise_image, to_uint8
from neighbor2neighbor.checkpoint import CheckpointMismatchError, load_checkpoint, save_checkpoint
from neighbor2neighbor.crops import Images
from neighbor2neighbor.loss import NeighborLoss, neighbor_loss, ramp
from neighbor2neighbor.subsampler import ORDERED_PAIRS, draw_pairs, subsample
from neighbor2neighbor.training import (
    StepRecord,
    Trainer,
    TrainingConfig,
    TrainingDivergedError,
    learning_rate_at,
    loss_weight_at,
    train,
)
from neighbor2neighbor.unet import UNet

__all__ = [
    "ORDERED_PAIRS",
    "CheckpointMismatchError",
    "Images",
    "NeighborLoss",
    "StepRecord",
    "Trainer",
    "TrainingConfig",
    "TrainingDivergedError",
    "UNet",
    "denoise_batch",
    "denoise_image",
    "draw_pairs",
    "learning_rate_at",
    "load_checkpoint",
    "loss_weight_at",
    "neighbor_loss",
    "ramp",
    "save_checkpoint",
    "subsample",
    "to_uint8",
    "train",
]
