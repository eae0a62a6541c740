"""A finished backbone as one function: images in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from dinov2_noise.decoding import ValueRange, parse_range
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.export.opened import Opened, open_model
from dinov2_noise.export.preprocessing import ImageLike, Preprocessing
from dinov2_noise.upstream.portable import plain_attention, require_size

if TYPE_CHECKING:
    from dinov2_noise.export.embedding import TokenChoice


class Tokens(NamedTuple):
    """Class token (B, D) and patch tokens (B, N, D), row by row, both after the final norm."""

    cls: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Features:
    """A backbone, and the preprocessing that belongs to it.

    Attributes:
        backbone: DINOv2's vision transformer in evaluation mode, its parameters without gradients.
        preprocessing: from an image to (3, S, S).
        name: of the run's folder. weights_hash: first 16 digits of the SHA-256 of its teacher checkpoint.
    """

    backbone: nn.Module
    preprocessing: Preprocessing
    name: str
    weights_hash: str

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def width(self) -> int:
        """Numbers per token, D."""
        return int(self.backbone.embed_dim)  # type: ignore[arg-type]

    def __call__(self, images: ImageLike | Sequence[ImageLike] | Tensor) -> Tokens:
        """Tokens of images, on `device`, without gradients.

        Args:
            images: one or several of Pillow's images or arrays, as `Preprocessing` takes them; or a tensor
                (B, 3, H, W), which is taken as preprocessed already; its sides must be multiples of the patch size.

        Raises:
            ImageError: an array that makes no image.
        """
        batch = images if isinstance(images, Tensor) else self._preprocessed(images)
        with torch.no_grad(), plain_attention(self.device):
            found: Any = self.backbone(batch.to(self.device), is_training=True)  # upstream's switch for all tokens
        return Tokens(found["x_norm_clstoken"], found["x_norm_patchtokens"])

    def _preprocessed(self, images: ImageLike | Sequence[ImageLike]) -> Tensor:
        several = [images] if isinstance(images, Image.Image | np.ndarray) else list(images)
        return torch.stack([self.preprocessing(image) for image in several])

    def embed(
        self,
        images: Sequence[str | Path] | str | Path,
        *,
        tokens: TokenChoice = "cls",
        batch_size: int = 64,
        workers: int = 0,
    ) -> NDArray[np.float32]:
        """Features (n, …) of files, of all images in folders, or of dataset strings, in order.

        Args:
            images: one or several of these.
            tokens: ``cls`` (n, D), ``mean-patch`` (n, D), ``cls+mean`` (n, 2 D) or ``patches`` (n, N, D).
            batch_size, workers: images per forward pass, processes that read them.

        Raises:
            MissingFolderError: a file does not exist, or a folder holds no images.
            ImageError: an image cannot be read.
        """
        from dinov2_noise.export.embedding import features_of

        several = [images] if isinstance(images, str | Path) else list(images)
        return features_of(self, several, tokens=tokens, batch_size=batch_size, workers=workers)


def load(
    path: str | Path, device: str = "cpu", *, size_px: int | None = None, values: str | ValueRange | None = None
) -> Features:
    """The backbone of a run, ready to use.

    Args:
        path: a run folder (of its teachers the latest), a ``teacher_checkpoint.pth`` inside one, or a folder that
            ``dinov2-noise export`` wrote in the formats safetensors, hf or timm.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        size_px: side of the images; 224 by default, as in upstream's evaluations.
        values: which values are black and white in images of more than 8 bits, such as ``fixed:0,4095``; by default as
            in the run's training.

    Raises:
        MissingFolderError: there is nothing of the kind.
        CheckpointError: there are no weights yet, or they do not fit.
        ConfigError: the config cannot be read; no such device; no such range.
        PluginError: DINOv2 cannot be imported.
    """
    where = choose_device(device)
    return features_from(open_model(Path(path)), where, size_px=size_px, values=values)


def features_from(
    opened: Opened, device: torch.device, *, size_px: int | None = None, values: str | ValueRange | None = None
) -> Features:
    """`load` for what has been opened."""
    preprocessing = opened.preprocessing
    if values is not None:
        preprocessing = replace(preprocessing, values=parse_range(values) if isinstance(values, str) else values)
    if size_px is not None:
        preprocessing = replace(preprocessing, size_px=size_px)
    require_size(opened.backbone, preprocessing.size_px)
    return Features(opened.backbone.to(device), preprocessing, opened.name, opened.weights_hash)
