"""`SSLMetaArch` computes a step in several parts, one after the other: gradient accumulation, ``step.micro_batches``.

Upstream's loop asks for one `forward_backward` per optimizer step, so the batch is split inside it. The DINO, iBOT and
anchor terms are means over images against targets that depend on the centers before the step only; so their mean over
equal parts, and its gradient, are those of the whole batch, provided the centers move once, at the end. Not equal to
the whole batch: KoLeo (each image's nearest neighbour is sought within its part), Sinkhorn-Knopp (which balances the
assignments within each part), and the random draws of drop path (made anew for each part).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dinov2_noise.errors import ConfigError
from dinov2_noise.upstream import runtime

logger = logging.getLogger("dinov2")


def split_batch(images: dict[str, Any], n_parts: int) -> Iterator[dict[str, Any]]:
    """Equal parts of a collated batch, each a batch of the same layout; tensors stay where they are.

    Args:
        images: what upstream's ``collate_data_and_cast`` makes. Every ``collated_*`` tensor is crop-major, (crops * B,
            …); ``masks_weight`` (M,) belongs to the True entries of ``collated_masks`` (2B, N) in their order.
        n_parts: must divide B.

    Yields:
        ``n_parts`` batches; together they hold every image, mask and weight once.
    """
    n_images = images["collated_global_crops"].shape[0] // 2
    weights = images["masks_weight"].new_zeros(images["collated_masks"].shape)
    weights[images["collated_masks"]] = images["masks_weight"]
    crop_major = {key: value for key, value in images.items() if key.startswith("collated_")}
    for part in range(n_parts):
        own = {key: _take(value, part, n_parts, n_images) for key, value in crop_major.items()}
        masks = own["collated_masks"]
        indices = masks.flatten().nonzero().flatten()
        own["mask_indices_list"] = indices
        own["masks_weight"] = _take(weights, part, n_parts, n_images)[masks]
        own["n_masked_patches"] = torch.full((1,), len(indices), dtype=torch.long)
        upperbound = max(len(indices), 1)  # rows of upstream's buffers; not 0, which kernels may refuse
        if images["collated_global_crops"].is_pinned():  # as the loader does: from other memory each copy would wait
            own = {key: value.pin_memory() for key, value in own.items()}
        yield images | own | {"upperbound": upperbound}


def _take(crops: Tensor, part: int, n_parts: int, n_images: int) -> Tensor:
    """The rows of part ``part`` in a crop-major tensor."""
    parts: Tensor = crops.unflatten(0, (-1, n_parts, n_images // n_parts))
    return parts[:, part].flatten(0, 1)


class _JointCenter:
    """Takes the place of a loss's ``update_center``: remembers the mean of all rows it is given."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._n_rows = 0

    @torch.no_grad()
    def collect(self, teacher_output: Tensor) -> None:
        """Add teacher logits: (n, K) of CLS tokens, or (1, M, K) of masked patches, M possibly 0."""
        rows = teacher_output.flatten(0, -2)
        total = rows.sum(dim=0, dtype=torch.float32)
        self._sum = total if self._sum is None else self._sum + total
        self._n_rows += len(rows)

    def hand_over(self, loss: Any) -> None:
        """Give the mean to the loss's own ``update_center``, as one row: what the whole batch would have given.

        Upstream's takes the mean over ranks, so every rank must take part. One without a single masked patch has no
        mean (upstream's center becomes NaN): it votes for the center as it is.
        """
        if self._sum is not None:
            mean = self._sum.view_as(loss.center) / self._n_rows if self._n_rows else loss.center.clone()
            loss.update_center(mean)


def keep_center_without_rows(loss: Any) -> None:
    """A batch without a masked patch, which few images or small crops can bring, leaves the center as it is.

    Upstream takes the mean of nothing: NaN, in the center and in every loss from then on. Over several processes such a
    one votes for the center as it is.
    """
    update = loss.update_center

    def update_center(teacher_output: Tensor) -> None:
        update(teacher_output if teacher_output.numel() else loss.center.clone())

    loss.update_center = update_center


@contextmanager
def one_center_update(losses: Sequence[nn.Module]) -> Iterator[None]:
    """Within, ``update_center`` of DINO and iBOT losses only collects; on leaving, each is called once with the joint
    mean.
    """
    joint = [(loss, _JointCenter()) for loss in losses]
    with ExitStack() as stack:
        for loss, center in joint:
            loss.update_center = center.collect  # type: ignore[assignment]  # on the instance, in front of the method
            stack.callback(delattr, loss, "update_center")
        yield
    for loss, center in joint:
        center.hand_over(loss)


class MicroBatches:
    """Splits each batch into ``step.micro_batches`` parts; with 1 the step is the one below."""

    cfg: Any
    _run: runtime.Run | None

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)  # type: ignore[call-arg]
        self._n_parts = 1 if self._run is None else self._run.step.micro_batches
        if self._n_parts > 1:
            _check(cfg, self._n_parts)
        elif self._run is not None:
            for loss in self._centered_losses():
                keep_center_without_rows(loss)

    def forward_backward(self, images: dict[str, Any], teacher_temp: float) -> dict[str, Tensor]:
        """One step's gradients, and its loss terms as means over the parts."""
        if self._n_parts == 1:
            return super().forward_backward(images, teacher_temp)  # type: ignore[misc, no-any-return]
        means: dict[str, Tensor] = {}
        with one_center_update(self._centered_losses()):
            for part in split_batch(images, self._n_parts):
                losses = super().forward_backward(part, teacher_temp)  # type: ignore[misc]
                for name, value in losses.items():
                    means[name] = means.get(name, 0) + value.detach() / self._n_parts
        return means

    def _centered_losses(self) -> list[nn.Module]:
        owners = [self, getattr(self, "frozen_teacher", None)]
        found = [getattr(owner, name, None) for owner in owners for name in ("dino_loss", "ibot_patch_loss")]
        return [loss for loss in found if loss is not None]


def _check(cfg: Any, n_parts: int) -> None:
    """Say what is computed per part.

    Raises:
        ConfigError: KoLeo is on and has a single image per part, which has no neighbour.
    """
    n_images = cfg.train.batch_size_per_gpu // n_parts
    if n_images == 1 and cfg.dino.koleo_loss_weight > 0:
        raise ConfigError(
            f"step.micro_batches is {n_parts}, which leaves one image to each part, and KoLeo needs a neighbour: take "
            "fewer micro-batches, or set dino.koleo_loss_weight=0"
        )
    if cfg.train.centering == "sinkhorn_knopp":
        logger.warning(
            "dinov2-noise: Sinkhorn-Knopp balances within each micro-batch (%d images per process), not within the "
            "whole batch; train.centering=centering gives the gradients of the whole batch",
            n_images,
        )


class ScaledBackward:
    """Divides the loss by the number of parts, so that their gradients add up to the whole batch's."""

    _run: runtime.Run | None

    def backprop_loss(self, loss: Tensor) -> None:
        if self._run is not None and self._run.step.micro_batches > 1:
            loss = loss / self._run.step.micro_batches
        super().backprop_loss(loss)  # type: ignore[misc]
