"""Features of fixed images from the EMA teacher of a training, on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dinov2_noise.monitor.images import ImageSet, normalised, prepare
from dinov2_noise.monitor.values import Features


@dataclass(frozen=True)
class Kept:
    """This process's part of some images, ready in memory: every ``world_size``-th, from its rank on.

    All processes hold as many, so that all make as many forward passes, which FSDP needs: the last may be there twice.

    Attributes:
        name: ``unlabelled``, ``train`` or ``val``. images: by view, of `prepare`. n_images: over all processes.
        labels: (n_images,), empty without labels.
    """

    name: str
    images: Mapping[str, Tensor]
    n_images: int
    labels: Tensor


def keep(name: str, images: ImageSet, side_px: int, *, workers: int) -> Kept:
    """Read this process's part.

    Raises:
        ImageError: an image cannot be read.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    n_rows = -(-len(images) // world_size)
    own = [images.indices[min(row * world_size + rank, len(images) - 1)] for row in range(n_rows)]
    views = {view: prepare(read, own, side_px, workers) for view, read in images.views.items()}
    labels = torch.empty(0, dtype=torch.int64) if images.labels is None else images.labels
    return Kept(name, views, len(images), labels)


class Extractor:
    """Runs the EMA teacher's backbone, in evaluation mode, without gradients; `close` it afterwards.

    Args:
        model: `SSLMetaArch`, wrapped for training. Its teacher is in evaluation mode all through training.
        batch_size: images per forward pass.
        always_full: fill up the last batch: compiled blocks are compiled anew for each size.
    """

    def __init__(self, model: Any, batch_size: int, *, always_full: bool = False) -> None:
        self._model, self._batch_size, self._always_full = model, batch_size, always_full
        # In stages whose teacher sees denoised crops, a hook puts the last batch's in the place of its input.
        self._teacher_crops, model._teacher_crops = model._teacher_crops, None

    @torch.no_grad()
    def __call__(self, kept: Kept, view: str) -> Features:
        """Features of all images of ``kept``, on every process; all must call it in the same order."""
        cls, patch = [], []
        for batch in kept.images[view].split(self._batch_size):
            n_missing = self._batch_size - len(batch) if self._always_full else 0
            pictures = torch.cat([batch, batch[-1:].expand(n_missing, -1, -1, -1)])
            tokens = self._model.teacher["backbone"](normalised(pictures.cuda()), is_training=True)
            cls.append(tokens["x_norm_clstoken"][: len(batch)].float())
            patch.append(tokens["x_norm_patchtokens"][: len(batch)].float().mean(dim=1))
        return Features(*(_gather(torch.cat(rows))[: kept.n_images].cpu() for rows in (cls, patch)))

    def close(self) -> None:
        """Leave the model as it was."""
        from dinov2.fsdp import reshard_fsdp_model

        reshard_fsdp_model(self._model.teacher)
        self._model._teacher_crops = self._teacher_crops


def _gather(rows: Tensor) -> Tensor:
    """(n · world_size, D) from (n, D) on each process, in the order that `keep` has dealt them."""
    if dist.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
