"""Features of labelled images for the probes of `evaluate linear` and `evaluate knn`, kept on disk.

One pass over the images gives what both probes need, and what a probe that looks at colour alone would know.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from dinov2_noise.configs import config_file
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.errors import CheckpointError
from dinov2_noise.evaluation.counting import LoaderSettings, batches
from dinov2_noise.evaluation.identity import dataset_identity, file_hash, files_state
from dinov2_noise.evaluation.label_sources import Indices
from dinov2_noise.files import atomic_path
from dinov2_noise.upstream.backbone import build_backbone
from dinov2_noise.upstream.probing.fourier import normalisation
from dinov2_noise.upstream.probing.model import (
    FeatureModel,
    Geometry,
    autocast_dtype,
    eval_transform,
    load_backbone_for_evaluation,
)

logger = logging.getLogger("dinov2")

N_BINS = 16


@dataclass(frozen=True)
class Features:
    """Of N images, float32 on the CPU.

    Attributes:
        class_tokens: (N, n, D) of the last n blocks, the last one at the end. mean_patch: (N, D) of the last block.
        colour: (N, 3 + 3 · 16) mean of each channel in [0, 1] and its histogram, of what the network was given.
    """

    class_tokens: Tensor
    mean_patch: Tensor
    colour: Tensor

    def linear_input(self, n_blocks: int, avgpool: bool) -> Tensor:
        """(N, n_blocks · D + avgpool · D), as upstream's heads read it."""
        tokens = self.class_tokens[:, -n_blocks:].flatten(1)
        return torch.cat([tokens, self.mean_patch], dim=1) if avgpool else tokens

    def rows(self, chosen: Tensor) -> Features:
        """Those of some of the images."""
        return Features(self.class_tokens[chosen], self.mean_patch[chosen], self.colour[chosen])


@dataclass(frozen=True)
class FeatureStore:
    """Makes features, or reads those it has made.

    Attributes:
        config_file, weights: of the run; without ``weights`` a network of the same architecture with random weights
            drawn by ``random_seed``.
        folder: where features are kept, under names that tell weights, config, images and noise apart.
        batch_size, workers, device: of no influence on what comes out, rounding aside.
    """

    config_file: Path
    weights: Path | None
    folder: Path
    geometry: Geometry = "upstream"
    batch_size: int = 128
    workers: int = 4
    device: str = "auto"
    random_seed: int = 0

    @cached_property
    def model(self) -> FeatureModel:
        """The backbone; loaded when the first images are to be seen.

        Raises:
            CheckpointError, ConfigError: weights and config do not fit together, or there is no such device.
        """
        device = choose_device(self.device)
        if self.weights is None:
            backbone = random_backbone(str(self.config_file), self.random_seed).to(device)
        else:
            backbone = load_backbone_for_evaluation(self.config_file, self.weights, device)
        return FeatureModel(backbone, autocast_dtype(self.config_file, device))

    def load(self) -> None:
        """Load the backbone now.

        Raises:
            CheckpointError, ConfigError: as for `model`.
        """
        _ = self.model

    def identity(self) -> dict[str, str]:
        """What tells the network from others."""
        random = f"random,seed={self.random_seed}"
        return {
            "weights": random if self.weights is None else file_hash(self.weights),
            "config": file_hash(Path(config_file(str(self.config_file)))),
            "geometry": self.geometry,
        }

    def of(self, dataset: str, what: str) -> Features:
        """Features of all images of a dataset string, in its order; ``what`` describes them while it takes time.

        Raises:
            CheckpointError: what is kept cannot be read. DinoNoiseError: an image cannot be read.
        """
        path = self._path(dataset)
        if not path.is_file():
            found = self._extracted(dataset, what)
            with atomic_path(path) as temporary:
                torch.save(vars(found), temporary)
        try:
            return Features(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as cause:
            raise CheckpointError(f"cannot read the kept features {path} ({cause}): delete the file") from cause

    def colours_of(self, dataset: str, what: str) -> Tensor:
        """(N, 51) as `Features.colour`, without the network.

        Raises:
            DinoNoiseError: an image cannot be read.
        """
        return torch.cat([self._colours(batch) for batch in self._batches(dataset, what)])

    def _path(self, dataset: str) -> Path:
        images = {**dataset_identity(dataset), "files": files_state(dataset)}
        parts = (sorted(self.identity().items()), sorted(images.items()))
        return self.folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.pt"

    @torch.inference_mode()
    def _extracted(self, dataset: str, what: str) -> Features:
        model = self.model
        tokens, patches, colours = [], [], []
        for images in self._batches(dataset, what, pin=model.device.type == "cuda"):
            blocks = model(images)
            tokens.append(torch.stack([class_token for _, class_token in blocks], dim=1).float().cpu())
            patches.append(blocks[-1][0].float().mean(dim=1).cpu())
            colours.append(self._colours(images))
        return Features(torch.cat(tokens), torch.cat(patches), torch.cat(colours))

    def _batches(self, dataset: str, what: str, *, pin: bool = False) -> Iterator[Tensor]:
        settings = LoaderSettings(eval_transform(self.geometry), self.batch_size, self.workers, pin=pin)
        yield from (batch.images for batch in batches([dataset], settings, description=what))

    def _colours(self, images: Tensor) -> Tensor:
        mean, deviation = normalisation()
        return colour_of(images * deviation + mean)


def colour_of(images: Tensor) -> Tensor:
    """(B, 3 + 3 · 16) of images (B, 3, H, W) in [0, 1]: mean of each channel, and shares of its values in 16 bins."""
    n, channels = images.shape[:2]
    place = (images * N_BINS).floor().clamp(0, N_BINS - 1).long()
    place += N_BINS * torch.arange(n * channels).reshape(n, channels, 1, 1)
    counts = torch.bincount(place.flatten(), minlength=n * channels * N_BINS).reshape(n, channels * N_BINS)
    return torch.cat([images.mean(dim=(2, 3)), counts / images[0, 0].numel()], dim=1)


def random_backbone(config: str, seed: int) -> nn.Module:
    """The config's network with random weights, in evaluation mode; the process's own random numbers stay untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(config).eval().requires_grad_(False)


def as_rows(indices: Indices) -> Tensor:
    """Indices of a task for tensors."""
    return torch.as_tensor(indices, dtype=torch.int64)
