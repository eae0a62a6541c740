"""Retrieval with a backbone's class tokens: images → features of unit length → rankings → scores, per pair of views.

The mathematics is in `dinov2_noise.evaluation.retrieval_scores`, the files in its neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dinov2_noise.configs import config_file
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.denoise.models import load_denoiser
from dinov2_noise.denoise.network import ApplySettings, Network
from dinov2_noise.errors import CheckpointError, ConfigError
from dinov2_noise.evaluation.identity import file_hash
from dinov2_noise.evaluation.image_stream import stream
from dinov2_noise.evaluation.retrieval_cache import FeatureCache, Features
from dinov2_noise.evaluation.retrieval_floors import colour_features
from dinov2_noise.evaluation.retrieval_images import Picture, Pictures, Prepare, Shown, finish
from dinov2_noise.noise import DEFAULT_SEED, parse
from dinov2_noise.upstream.probing.fourier import normalisation
from dinov2_noise.upstream.probing.model import (
    CROP_PX,
    FeatureModel,
    autocast_dtype,
    load_backbone_for_evaluation,
)

CLEAN = "clean"
_RESIZE_PX = 256
_DENOISED_BATCH = 8  # whole images go from the workers to the denoiser


@dataclass(frozen=True)
class View:
    """How queries, or the database, are shown.

    Attributes:
        label: in tables and names of files. noise: its name, added on the fly; None: images as they are stored.
        denoiser: weights of a denoiser that each image goes through after its noise.
    """

    label: str
    pictures: Sequence[Picture]
    noise: str | None = None
    seed: int = DEFAULT_SEED
    denoiser: Path | None = None

    def identity(self) -> dict[str, Any]:
        """What decides the pixels beside the files."""
        found: dict[str, Any] = {} if self.noise is None else {"noise": f"{parse(self.noise).name},seed={self.seed}"}
        return found if self.denoiser is None else {**found, "denoiser": file_hash(self.denoiser)}


@dataclass(frozen=True)
class Extractor:
    """A run's backbone, and how images reach it.

    Attributes:
        size_px: side of the centre crop; before, the shorter side is resized to 8/7 of it: 256 for 224, as upstream's.
    """

    config_file: Path
    weights: Path
    size_px: int = CROP_PX
    batch_size: int = 64
    workers: int = 4
    device: str = "auto"
    _networks: dict[Path, Network] = field(default_factory=dict, repr=False, compare=False)

    def check(self) -> None:
        """Check what can be checked before images are read.

        Raises:
            ConfigError: an option is out of range, or there is no such device.
        """
        if self.batch_size < 1 or self.workers < 0 or self.size_px < 1:
            raise ConfigError(
                f"batch size {self.batch_size}, workers {self.workers}, size {self.size_px}: at least 1, 0 and 1"
            )
        choose_device(self.device)

    @cached_property
    def model(self) -> FeatureModel:
        """Loaded when it is first needed: with all features kept it is not.

        Raises:
            CheckpointError: the weights do not fit. ConfigError: neither does the size.
        """
        device = choose_device(self.device)
        backbone = load_backbone_for_evaluation(self.config_file, self.weights, device)
        patch = int(backbone.patch_size)  # type: ignore[arg-type]
        if self.size_px % patch:
            raise ConfigError(f"--size {self.size_px}: give a multiple of the backbone's patch size, {patch}")
        return FeatureModel(backbone, autocast_dtype(self.config_file, device))

    def identity(self) -> dict[str, Any]:
        """What decides the features of given pixels."""
        dtype = autocast_dtype(self.config_file, choose_device(self.device))
        return {
            "weights": file_hash(self.weights),
            "config": file_hash(Path(config_file(str(self.config_file)))),
            "size_px": self.size_px,
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
        }

    def prepare(self) -> Prepare:
        """Upstream's transform of its evaluations, picklable."""
        from dinov2.data.transforms import make_classification_eval_transform

        resize = round(self.size_px * _RESIZE_PX / CROP_PX)
        return make_classification_eval_transform(  # type: ignore[no-any-return]
            resize_size=resize, crop_size=self.size_px
        )

    def features(self, view: View, cache: Path, description: str) -> Features:
        """Of all images of a view, as far as possible from ``cache``.

        Raises:
            DinoNoiseError: weights, denoiser or an image cannot be read, or features are not finite.
        """

        def extract(parts: Sequence[Sequence[int]]) -> Iterator[Features]:
            return self._extract(view, parts, description)

        return FeatureCache(cache, view.pictures, {**self.identity(), **view.identity()}).features(extract)

    def _extract(self, view: View, parts: Sequence[Sequence[int]], description: str) -> Iterator[Features]:
        model, prepare = self.model, self.prepare()
        noise = None if view.noise is None else parse(view.noise)
        items = Pictures(view.pictures, None if view.denoiser else prepare, noise, view.seed)
        size = min(self.batch_size, _DENOISED_BATCH) if view.denoiser else self.batch_size
        batches = [
            (number, part[start : start + size])
            for number, part in enumerate(parts)
            for start in range(0, len(part), size)
        ]
        loaded = stream(items, [batch for _, batch in batches], workers=self.workers, description=description)
        pieces: list[Features] = []
        for position, ((number, batch), shown) in enumerate(zip(batches, loaded, strict=True)):
            pictures = [view.pictures[index] for index in batch]
            pieces.append(_embed(model, self._finished(shown, pictures, view.denoiser, prepare), shown, view))
            if position + 1 == len(batches) or batches[position + 1][0] != number:
                yield Features.joined(pieces)
                pieces = []

    def _finished(
        self, shown: Sequence[Shown], pictures: Sequence[Picture], denoiser: Path | None, prepare: Prepare
    ) -> Tensor:
        if denoiser is None:
            return torch.stack([torch.as_tensor(one.image) for one in shown])
        if denoiser not in self._networks:
            loaded = load_denoiser(denoiser, None, None)
            self._networks[denoiser] = Network(loaded, self.model.device, ApplySettings())
        network = self._networks[denoiser]
        return torch.stack(
            [
                finish(_denoised(network, np.asarray(one.image), picture.path), picture, prepare)
                for one, picture in zip(shown, pictures, strict=True)
            ]
        )


@torch.inference_mode()
def _denoised(network: Network, pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    cleaned: NDArray[np.uint8] = network.denoise([network.pad(image)], [path])[0].numpy()
    return cleaned[: pixels.shape[0], : pixels.shape[1]]


def _embed(model: FeatureModel, images: Tensor, shown: Sequence[Shown], view: View) -> Features:
    """Features of prepared images (B, 3, S, S).

    Raises:
        CheckpointError: they are not finite.
    """
    mean, deviation = normalisation()
    tokens = normalize(model(images)[-1][1].float(), dim=1).cpu()
    if not tokens.isfinite().all():
        raise CheckpointError(
            f"the backbone's features of {view.label} images are not finite: its weights are those of a run "
            "that diverged"
        )
    colours = colour_features(images * deviation + mean)
    ratios = np.array([one.snr_db for one in shown], dtype=np.float64)
    return Features(tokens.numpy(), colours.numpy(), ratios)


def used(view: View, extractor: Extractor) -> Mapping[str, Any]:
    """For records: how a view's images were made."""
    roots = sorted({os.path.abspath(picture.root) for picture in view.pictures})
    return {"label": view.label, "images": roots, **view.identity(), "size_px": extractor.size_px}
