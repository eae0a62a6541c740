"""A folder's images as the list of tensors that ``neighbor2neighbor`` works on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.noise.decode import load_rgb


def read_rgb(path: Path) -> Tensor:
    """An image as uint8 ``(3, H, W)``.

    Raises:
        ImageError: it cannot be decoded, or has more than 8 bits per channel.
    """
    return torch.from_numpy(np.array(load_rgb(path))).permute(2, 0, 1)


class ImageFiles:
    """The images of a folder, decoded when asked for."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Tensor:
        """Image number ``index``, uint8 ``(3, H, W)``."""
        return read_rgb(self.root / self.names[index])
