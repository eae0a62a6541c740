"""Data: decoding, metadata of labelled folders, dataset strings, and the datasets behind them."""

from dinov2_noise.data.datasets import DrawLike, PairedImages, ViewLoader
from dinov2_noise.data.image_folder import NoisyImageFolder
from dinov2_noise.data.image_net import NoisyImageNet
from dinov2_noise.data.imagenet_c import CorruptedImageNet, StoredCell, find_cells
from dinov2_noise.data.index import build_index
from dinov2_noise.data.label_file import LabelFile, read_label_file, write_label_file
from dinov2_noise.data.labelled_images import LabelledImages, labelled_images_string
from dinov2_noise.data.metadata import default_extra
from dinov2_noise.data.options import Subset
from dinov2_noise.data.pairs import PairedSource, check_pairs
from dinov2_noise.data.shards import ShardedImages
from dinov2_noise.data.strings import (
    DATASETS,
    DatasetKind,
    DatasetSpec,
    make,
    parse_dataset_string,
    refuse_fresh,
    register_dataset,
)

__all__ = [
    "DATASETS",
    "CorruptedImageNet",
    "DatasetKind",
    "DatasetSpec",
    "DrawLike",
    "LabelFile",
    "LabelledImages",
    "NoisyImageFolder",
    "NoisyImageNet",
    "PairedImages",
    "PairedSource",
    "ShardedImages",
    "StoredCell",
    "Subset",
    "ViewLoader",
    "build_index",
    "check_pairs",
    "default_extra",
    "find_cells",
    "labelled_images_string",
    "make",
    "parse_dataset_string",
    "read_label_file",
    "refuse_fresh",
    "register_dataset",
    "write_label_file",
]
