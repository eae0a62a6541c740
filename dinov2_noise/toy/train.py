"""Pretraining of the toy's network on pairs of views, and the linear probe of its features.

Source: "Ditch the Denoiser", arXiv 2505.12191, toy experiment, and its public code for what the paper leaves open: each
view has noise of its own, new in every step; the optimizer is new after a switch. Difference: a pass over the digits
need not end with a smaller batch, the next pass follows on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dinov2_noise.errors import DivergedError
from dinov2_noise.toy.model import Encoder, linear_classifier, toy_loss
from dinov2_noise.toy.seeding import Stream, generator
from dinov2_noise.toy.views import apply_views, draw_views

_TEST_BATCH = 2048


@dataclass(frozen=True)
class Digits:
    """Images ``(N, 28, 28)``, float32 in [0, 1], and labels ``(N,)``, int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Stage:
    """A part of a pretraining.

    Attributes:
        images: what is seen, ``(N, 28, 28)`` in [0, 1].
        noise_std: of Gaussian noise added anew to each view; 0 where the images are seen as they are.
        steps: optimizer steps.
    """

    images: Tensor
    noise_std: float
    steps: int


@dataclass(frozen=True)
class Optimization:
    """Adam's learning rate, and digits in a step."""

    learning_rate: float
    batch_size: int


def add_noise(images: Tensor, std: float, source: torch.Generator) -> Tensor:
    """``clip(images + N(0, std^2), 0, 1)``, any shape."""
    noise = torch.empty_like(images).normal_(0.0, std, generator=source)
    return noise.add_(images).clamp_(0, 1)


def pretrain(
    encoder: Encoder,
    stage: Stage,
    optimization: Optimization,
    *,
    seed: int,
    part: int,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Train the encoder in place through one stage, with a fresh Adam.

    Args:
        encoder: continues with the weights it has.
        stage: what it sees.
        optimization: how.
        seed: of the run.
        part: number of the stage in the run, from 0; with the seed it decides all draws.
        on_step: called after each step with its number, from 1.

    Raises:
        DivergedError: the loss is not finite.
    """
    adam = torch.optim.Adam(encoder.parameters(), lr=optimization.learning_rate, fused=True)
    views, noise = generator(seed, Stream.VIEWS, part), generator(seed, Stream.NOISE, part)
    order = generator(seed, Stream.ORDER, part)
    for step, chosen in enumerate(batches(len(stage.images), optimization.batch_size, stage.steps, order), start=1):
        pair = torch.cat([stage.images[chosen]] * 2)
        if stage.noise_std:
            pair = add_noise(pair, stage.noise_std, noise)
        pair = apply_views(pair, draw_views(len(pair), pair.shape[-1], views))
        z1, z2 = encoder(pair).chunk(2)
        loss = toy_loss(z1, z2)
        if not loss.isfinite():
            raise DivergedError(
                f"the toy's loss is {loss.item()} at step {step} of {stage.steps}: use a lower --speed-up"
            )
        adam.zero_grad()
        loss.backward()
        adam.step()
        if on_step is not None:
            on_step(step)


def batches(n_items: int, batch_size: int, steps: int, source: torch.Generator) -> Iterator[Tensor]:
    """``steps`` batches of indices from an endless row of shuffled passes over all items; all are full."""
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(n_items, generator=source)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def probe(
    encoder: Encoder,
    train: Digits,
    test: Digits,
    optimization: Optimization,
    *,
    steps: int,
    noise_std: float,
    seed: int,
) -> float:
    """Accuracy in [0, 1] of a linear classifier on the frozen features.

    Args:
        encoder: stays as it is.
        train: what the classifier learns from.
        test: what it is measured on, with its noise already in it.
        optimization: of the classifier.
        steps: optimizer steps.
        noise_std: of noise added to the training digits, anew in each pass over them; 0 where it is in them already.
        seed: of the run.
    """
    classifier = linear_classifier(int(train.labels.max()) + 1, generator(seed, Stream.PROBE_INIT))
    adam = torch.optim.Adam(classifier.parameters(), lr=optimization.learning_rate, fused=True)
    noise, order = generator(seed, Stream.PROBE_NOISE), generator(seed, Stream.PROBE_ORDER)
    for chosen in batches(len(train), optimization.batch_size, steps, order):
        images = train.images[chosen]
        if noise_std:
            images = add_noise(images, noise_std, noise)
        with torch.no_grad():
            features = encoder(images)
        loss = F.cross_entropy(classifier(features), train.labels[chosen])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return accuracy(encoder, classifier, test)


@torch.no_grad()
def accuracy(encoder: Encoder, classifier: torch.nn.Linear, digits: Digits) -> float:
    """Share of digits whose class has the largest output."""
    right = 0
    for images, labels in zip(digits.images.split(_TEST_BATCH), digits.labels.split(_TEST_BATCH), strict=True):
        right += int((classifier(encoder(images)).argmax(dim=1) == labels).sum())
    return right / len(digits)
