"""Data: decoding, metadata of labelled folders, dataset strings, and the datasets behind them."""

from dinov2_noise.data.datasets import DrawLike, NoisyImageFolder, NoisyImageNet, PairedImages, ViewLoader
from dinov2_noise.data.imagenet_c import CorruptedImageNet, StoredCell, find_cells
from dinov2_noise.data.index import build_index, default_extra
from dinov2_noise.data.pairs import PairedSource, check_pairs
from dinov2_noise.data.strings import (
    DATASETS,
    DatasetKind,
    DatasetSpec,
    make,
    parse_dataset_string,
    register_dataset,
)

__all__ = [
    "DATASETS",
    "CorruptedImageNet",
    "DatasetKind",
    "DatasetSpec",
    "DrawLike",
    "NoisyImageFolder",
    "NoisyImageNet",
    "PairedImages",
    "PairedSource",
    "StoredCell",
    "ViewLoader",
    "build_index",
    "check_pairs",
    "default_extra",
    "find_cells",
    "make",
    "parse_dataset_string",
    "register_dataset",
]
