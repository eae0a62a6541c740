"""A linear classifier on a backbone's patch tokens, and one on patches' colours: trained, and scored by mIoU.

The mathematics is in `dinov2_noise.evaluation.dense_linear` and `dense_scores`, images and masks in their neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dinov2_noise.configs import config_file
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.errors import CheckpointError, ConfigError
from dinov2_noise.evaluation.dense_images import Geometry, Scene, Scenes
from dinov2_noise.evaluation.dense_linear import LinearClassifier, choose_and_fit, fit, patch_shares
from dinov2_noise.evaluation.dense_masks import Labelled
from dinov2_noise.evaluation.dense_results import ConditionResult
from dinov2_noise.evaluation.dense_scores import Tally, score
from dinov2_noise.evaluation.identity import file_hash
from dinov2_noise.evaluation.image_stream import stream
from dinov2_noise.noise import DEFAULT_SEED, parse
from dinov2_noise.upstream.probing.fourier import normalisation
from dinov2_noise.upstream.probing.model import FeatureModel, autocast_dtype, load_backbone_for_evaluation

KINDS = ("tokens", "colours")

Save = Callable[[int, NDArray[np.uint16]], None]
"""Takes the predicted classes (H, W) of a validation image, by its number."""


@dataclass(frozen=True)
class DenseRequest:
    """What to probe and how.

    Attributes:
        train, val: images and masks. n_classes: of both. ignore: value of pixels without class; None: all have one.
        size_px: see `dense_images.Geometry`. blocks: patch tokens of the last so many blocks, side by side.
        l2: see `dense_linear.fit`; None: see `dense_linear.choose_and_fit`.
        max_patches: of the training images, drawn evenly over them.
        seed: base seed of the noise, and of the draw.
    """

    config_file: Path
    weights: Path
    train: Sequence[Labelled]
    val: Sequence[Labelled]
    n_classes: int
    ignore: int | None = 255
    size_px: int = 448
    blocks: int = 1
    l2: float | None = None
    max_patches: int = 200_000
    seed: int = DEFAULT_SEED
    batch_size: int = 16
    workers: int = 4
    device: str = "auto"

    def __post_init__(self) -> None:
        if min(self.size_px, self.blocks, self.batch_size, self.max_patches) < 1 or self.workers < 0:
            raise ConfigError(
                f"size {self.size_px}, blocks {self.blocks}, batch size {self.batch_size}, patches {self.max_patches}, "
                f"workers {self.workers}: at least 1 of each is needed, 0 workers"
            )
        if self.l2 is not None and not 0 < self.l2 < math.inf:
            raise ConfigError(f"--l2 {self.l2}: auto, or a number above 0")
        choose_device(self.device)

    def identity(self) -> dict[str, Any]:
        """What decides the results beside images and masks."""
        dtype = autocast_dtype(self.config_file, choose_device(self.device))
        return {
            "weights": file_hash(self.weights),
            "config": file_hash(Path(config_file(str(self.config_file)))),
            "n_classes": self.n_classes,
            "ignore": self.ignore,
            "size_px": self.size_px,
            "blocks": self.blocks,
            "l2": self.l2,
            "max_patches": self.max_patches,
            "seed": self.seed,
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
        }


class _Patches(NamedTuple):
    """Of a batch: patch features by kind, (B, h · w, D) each, and (h, w)."""

    features: dict[str, Tensor]
    grid: tuple[int, int]


class DenseProbe:
    """A request with its backbone loaded.

    Raises:
        CheckpointError: the weights do not fit the config.
        ConfigError: the backbone has fewer blocks than are asked for.
    """

    def __init__(self, request: DenseRequest) -> None:
        self.request = request
        device = choose_device(request.device)
        backbone = load_backbone_for_evaluation(request.config_file, request.weights, device)
        self.model = FeatureModel(backbone, autocast_dtype(request.config_file, device))
        self.geometry = Geometry(request.size_px, int(backbone.patch_size))  # type: ignore[arg-type]
        if request.blocks > self.model.n_blocks:
            raise ConfigError(f"--blocks {request.blocks}: the last {self.model.n_blocks} can be read")
        self._mean, self._deviation = normalisation()
        self._heads: dict[str | None, dict[str, LinearClassifier]] = {}

    def measure(self, noise: str | None, train_noise: str | None, save: Save | None = None) -> ConditionResult:
        """Train on the training images and score on the validation images, each with its noise, or None.

        Raises:
            DinoNoiseError: an image or a mask cannot be read, or features are not finite.
        """
        if train_noise not in self._heads:
            self._heads[train_noise] = self.train(train_noise)
        heads = self._heads[train_noise]
        tallies, ratios = self._test(heads, noise, save)
        scores = {kind: score(Tally.stacked(tallies[kind])) for kind in KINDS}
        return ConditionResult(
            "clean" if noise is None else noise,
            "clean" if train_noise is None else train_noise,
            sum(ratios) / len(ratios) if ratios else None,
            scores,
            {kind: {"l2": head.l2, "has_converged": head.has_converged} for kind, head in heads.items()},
        )

    def train(self, noise: str | None) -> dict[str, LinearClassifier]:
        """The classifiers of tokens and of colours, fitted to the training images."""
        request = self.request
        scenes = self._scenes(request.train, noise)
        quota = max(1, request.max_patches // len(request.train))
        kept: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        shares: list[Tensor] = []
        images: list[Tensor] = []
        for indices, loaded, patches in self._patches(scenes, f"training patches, {noise or 'clean'}, batches"):
            for place, (index, scene) in enumerate(zip(indices, loaded, strict=True)):
                own = patch_shares(scene.mask, patches.grid, request.n_classes, request.ignore)
                chosen = torch.from_numpy(_drawn(own, quota, (request.seed, index)))
                shares.append(torch.from_numpy(own)[chosen])
                images.append(torch.full((len(chosen),), index))
                for kind in KINDS:
                    kept[kind].append(patches.features[kind][place][chosen.to(self.model.device)])
        targets = torch.cat(shares).to(self.model.device)
        if request.l2 is not None:
            return {kind: fit(torch.cat(kept[kind]), targets, l2=request.l2) for kind in KINDS}
        sources = torch.cat(images).to(self.model.device)
        return {kind: choose_and_fit(torch.cat(kept[kind]), targets, sources) for kind in KINDS}

    def _test(
        self, heads: dict[str, LinearClassifier], noise: str | None, save: Save | None
    ) -> tuple[dict[str, list[Tally]], list[float]]:
        request = self.request
        tallies: dict[str, list[Tally]] = {kind: [] for kind in KINDS}
        ratios: list[float] = []
        scenes = self._scenes(request.val, noise)
        for indices, loaded, patches in self._patches(scenes, f"validation, {noise or 'clean'}, batches"):
            ratios += [scene.snr_db for scene in loaded if math.isfinite(scene.snr_db)]
            for kind in KINDS:
                maps = scores_map(heads[kind](patches.features[kind]), patches.grid)
                for index, scene, one in zip(indices, loaded, maps, strict=True):
                    told = upsampled_classes(one, scene.mask.shape)
                    tallies[kind].append(Tally.of(told, scene.mask, request.n_classes, request.ignore))
                    if kind == "tokens" and save is not None:
                        save(index, told)
        return tallies, ratios

    def _scenes(self, labelled: Sequence[Labelled], noise: str | None) -> Scenes:
        return Scenes(labelled, self.geometry, None if noise is None else parse(noise), self.request.seed)

    def _patches(self, scenes: Scenes, description: str) -> Iterator[tuple[list[int], list[Scene], _Patches]]:
        batches = scenes.batches(self.request.batch_size)
        loaded = stream(scenes, batches, workers=self.request.workers, description=description)
        for indices, found in zip(batches, loaded, strict=True):
            yield indices, found, self._features(torch.stack([scene.image for scene in found]))

    @torch.inference_mode()
    def _features(self, images: Tensor) -> _Patches:
        """Of images in [0, 1] (B, 3, h · P, w · P): tokens of the last blocks, and mean colours."""
        patch = self.geometry.patch_px
        grid = images.shape[-2] // patch, images.shape[-1] // patch
        found = self.model((images - self._mean) / self._deviation)[-self.request.blocks :]
        tokens = torch.cat([patches for patches, _ in found], dim=2).float()
        if not tokens.isfinite().all():
            raise CheckpointError(
                "the backbone's patch tokens are not finite: its weights are those of a run that diverged"
            )
        colours = avg_pool2d(images.to(self.model.device), patch).flatten(2).transpose(1, 2)
        return _Patches({"tokens": tokens, "colours": colours}, grid)


def _drawn(shares: NDArray[np.float32], quota: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """Numbers of ``quota`` patches that have a labelled pixel, or of all, in order."""
    labelled = np.flatnonzero(shares.sum(axis=1) > 0)
    if len(labelled) <= quota:
        return labelled
    return np.sort(np.random.default_rng(seed).choice(labelled, size=quota, replace=False))


def scores_map(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h · w, C) → (B, C, h, w)."""
    batch, _, n_classes = scores.shape
    return scores.transpose(1, 2).reshape(batch, n_classes, *grid)


def upsampled_classes(scores: Tensor, size: Sequence[int]) -> NDArray[np.uint16]:
    """The best class of each pixel (H, W) after scores (C, h, w) are upsampled bilinearly to ``size``."""
    upsampled = interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
    classes: NDArray[np.uint16] = upsampled.argmax(dim=0).cpu().numpy().astype(np.uint16)
    return classes
