"""Training of the denoiser on noisy images alone, in one process or several.

Source: Huang et al., "Neighbor2Neighbor", CVPR 2021, arXiv 2101.02824. Defaults are the published ones.
Differences: the images are taken as they are (their noise is fixed, no clean image is needed); a run may be given as a
number of steps; all randomness is a function of the seed and the step, so that an interrupted run continues exactly.
Not in the paper: several processes, reduced precision, a running mean of the weights, sub-sampling of correlated noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import DataLoader

from neighbor2neighbor.config import CROP_MULTIPLE_PX, TrainingConfig, learning_rate_at, loss_weight_at
from neighbor2neighbor.crops import Crops, CropStream, Images
from neighbor2neighbor.ema import WeightMean
from neighbor2neighbor.loss import NeighborLoss, neighbor_loss
from neighbor2neighbor.phases import Strided, to_phases
from neighbor2neighbor.subsampler import draw_pairs, subsample
from neighbor2neighbor.unet import UNet

__all__ = ["CROP_MULTIPLE_PX", "StepRecord", "Trainer", "TrainingDivergedError", "train"]

_PAIR_STREAM, _INIT_STREAM, _WORKER_STREAM = 1, 2, 3
_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


class StepRecord(NamedTuple):
    """What happened in one optimizer step; ``step`` counts from 1, so the last one equals ``total_steps``."""

    step: int
    total_steps: int
    learning_rate: float
    weight: float
    loss: float
    reconstruction: float
    regularization: float


class Trainer:
    """A training run that can be watched step by step, saved and continued. It writes no file.

    Several processes (a default process group of ``torch.distributed``) share each batch. Crops and pairs are functions
    of the place in the whole batch and gradients are averaged, so that N processes compute what one does, up to the
    order of sums; a state saved by one continues on N, and the other way round.

    Args:
        images: noisy images, none smaller than ``config.crop_px``; the same in all processes.
        config: see :class:`TrainingConfig`.
        device: where to compute.
        num_workers: processes that load images; the result does not depend on it.
        rank: number of this process, from 0.
        world_size: number of processes; must divide the batch.

    Raises:
        ValueError: there are no images, the batch cannot be shared out evenly, or the process group is another one.
    """

    def __init__(
        self,
        images: Images,
        config: TrainingConfig,
        *,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(images) == 0:
            raise ValueError("no images to train on")
        self._share = config.share(world_size)
        _check_processes(rank, world_size)
        self.images = images
        self.config = config
        self.device = torch.device(device)
        self.num_workers = num_workers
        self.rank = rank
        self.world_size = world_size
        self.total_steps = config.total_steps(len(images))
        self.step = 0
        with torch.random.fork_rng(devices=[]):  # constructing layers draws from the global generator
            generator = _generator(config.seed, _INIT_STREAM, 0)
            model = UNet(n_feature=config.n_feature, residual=config.residual, generator=generator)
        # Channels-last convolutions are a quarter faster on a CPU.
        self.model: UNet = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self._mean = None if config.ema is None else WeightMean(self.model, config.ema)
        # fp16 cannot hold small gradients: they are scaled up, and a step whose gradients overflow is left out.
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")

    def steps(self) -> Iterator[StepRecord]:
        """Run the remaining steps, yielding a record after each; it is the same in all processes.

        Raises:
            TrainingDivergedError: the loss is not finite, in any process; the weights are those before that step.
        """
        self.model.train()
        for batch in self._loader():
            yield self._take_step(batch)

    def denoiser(self) -> UNet | Strided:
        """A copy of the network as it is now, in eval mode: what is saved, shown and validated.

        It has the running mean of the weights where ``config.ema`` is given, and takes phases apart where
        ``config.stride`` is above 1.
        """
        network = deepcopy(self.model if self._mean is None else self._mean.network)
        stride = self.config.stride
        return (network if stride == 1 else Strided(network, stride)).eval()

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to continue: step, weights, optimizer; mean of the weights and fp16's scale if used."""
        state = {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self._mean is not None:
            state["ema"] = self._mean.network.state_dict()
        if self._scaler.is_enabled():
            state["scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict` of a run with the same images and config.

        Raises:
            KeyError, RuntimeError: it is of another one.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._mean is not None:
            self._mean.network.load_state_dict(state["ema"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])

    def _loader(self) -> DataLoader[Tensor]:
        config = self.config
        first, last = self.step * config.batch_size, self.total_steps * config.batch_size
        return DataLoader(
            Crops(self.images, config.crop_px, config.seed),
            batch_size=self._share,
            sampler=CropStream(
                *(len(self.images), config.seed, first, last),
                share=self._share,
                rank=self.rank,
                world_size=self.world_size,
            ),
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            generator=_generator(config.seed, _WORKER_STREAM, 0),
        )

    def _take_step(self, batch: Tensor) -> StepRecord:
        learning_rate = learning_rate_at(self.step, len(self.images), self.config)
        weight = loss_weight_at(self.step, len(self.images), self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch.to(self.device, non_blocking=True), weight)
        self._scaler.scale(loss.total).backward()
        terms = torch.stack([term.detach() for term in loss])
        if self.world_size > 1:
            _average([terms, *(weights.grad for weights in self.model.parameters() if weights.grad is not None)])
        value, reconstruction, regularization = terms.tolist()  # the one time in a step that a GPU is waited for
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"the loss is {value} at step {self.step + 1} of {self.total_steps} (learning rate {learning_rate:g}): "
                "lower the learning rate, and check that the images hold finite values in [0, 1]"
            )
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.step += 1
        if self._mean is not None:
            self._mean.update(self.model, self.step)
        return StepRecord(self.step, self.total_steps, learning_rate, weight, value, reconstruction, regularization)

    def _loss(self, crops: Tensor, weight: float) -> NeighborLoss:
        noisy = to_phases(crops, self.config.stride)
        pairs = self._pairs(noisy)
        g1, g2 = subsample(noisy, pairs)
        with torch.no_grad():
            g1_of_denoised, g2_of_denoised = subsample(self._denoised(noisy), pairs)
        return neighbor_loss(self._denoised(g1), g2, g1_of_denoised, g2_of_denoised, weight)

    def _pairs(self, noisy: Tensor) -> Tensor:
        """This process's part of the pairs of the whole batch; drawn on the CPU, the same on every device."""
        share = noisy.shape[0]
        shape = (share * self.world_size, *noisy.shape[1:])
        pairs = draw_pairs(shape, _generator(self.config.seed, _PAIR_STREAM, self.step))
        return pairs[self.rank * share : (self.rank + 1) * share].to(self.device, non_blocking=True)

    def _denoised(self, noisy: Tensor) -> Tensor:
        # Autocast once for each pass: its copies of the weights made without gradients must not serve the other pass.
        precision = _REDUCED.get(self.config.precision)
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            output: Tensor = self.model(noisy.contiguous(memory_format=torch.channels_last))
        return output.float()


def train(
    images: Images,
    config: TrainingConfig,
    on_step: Callable[[StepRecord], None] | None = None,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> UNet | Strided:
    """Train a denoiser on noisy images; the same seed gives the same weights on the same machine.

    Args:
        images: noisy images ``(3, H, W)``, uint8 or float in [0, 1], none smaller than ``config.crop_px``.
        config: see :class:`TrainingConfig`.
        on_step: called after each optimizer step.
        device: where to compute.
        num_workers: processes that load images.

    Raises:
        ValueError: no images, or one smaller than the crop.
        TrainingDivergedError: the loss is not finite.
    """
    trainer = Trainer(images, config, device=device, num_workers=num_workers)
    for record in trainer.steps():
        if on_step is not None:
            on_step(record)
    return trainer.denoiser()


def _check_processes(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0 to world_size - 1, got rank {rank} of {world_size}")
    if world_size == 1:
        return
    if not dist.is_initialized():
        raise ValueError(f"rank {rank} of {world_size} needs a process group: call torch.distributed's first")
    if (dist.get_rank(), dist.get_world_size()) != (rank, world_size):
        raise ValueError(
            f"the process group says rank {dist.get_rank()} of {dist.get_world_size()}, not {rank} of ours"
        )


def _average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over all processes.

    Instead of ``DistributedDataParallel``: 5 MB of gradients are not worth an overlap with the backward pass, and with
    loss and gradients in one exchange all processes see the same loss, and stop at the same step.
    """
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _generator(seed: int, stream: int, position: int) -> torch.Generator:
    """A CPU generator whose seed depends on all three numbers."""
    mixed = np.random.SeedSequence([seed, stream, position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))  # torch takes 63 bits without a sign
