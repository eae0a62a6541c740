"""Neighbor2Neighbor: learn to denoise from single noisy images.

Written from the paper: Huang, Li, Jia, Lu, Liu, "Neighbor2Neighbor: Self-Supervised Denoising from Single Noisy
Images", CVPR 2021, arXiv 2101.02824. Needs torch and NumPy only.
"""

from neighbor2neighbor.application import (
    DenoiserOutputError,
    denoise_batch,
    denoise_image,
    denoise_padded,
    to_uint8,
)
from neighbor2neighbor.checkpoint import CheckpointMismatchError, load_checkpoint, read_notes, save_checkpoint
from neighbor2neighbor.config import TrainingConfig, learning_rate_at, loss_weight_at
from neighbor2neighbor.crops import Images
from neighbor2neighbor.ema import WeightMean
from neighbor2neighbor.loss import NeighborLoss, neighbor_loss, ramp
from neighbor2neighbor.padding import padded_size, reflect_to
from neighbor2neighbor.phases import Strided, from_phases, to_phases
from neighbor2neighbor.subsampler import ORDERED_PAIRS, draw_pairs, subsample
from neighbor2neighbor.training import StepRecord, Trainer, TrainingDivergedError, train
from neighbor2neighbor.unet import UNet

__all__ = [
    "ORDERED_PAIRS",
    "CheckpointMismatchError",
    "DenoiserOutputError",
    "Images",
    "NeighborLoss",
    "StepRecord",
    "Strided",
    "Trainer",
    "TrainingConfig",
    "TrainingDivergedError",
    "UNet",
    "WeightMean",
    "denoise_batch",
    "denoise_image",
    "denoise_padded",
    "draw_pairs",
    "from_phases",
    "learning_rate_at",
    "load_checkpoint",
    "loss_weight_at",
    "neighbor_loss",
    "padded_size",
    "ramp",
    "read_notes",
    "reflect_to",
    "save_checkpoint",
    "subsample",
    "to_phases",
    "to_uint8",
    "train",
]
