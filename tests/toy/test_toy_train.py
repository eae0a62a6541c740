"""Pretraining and probe: what decides the numbers, what a switch keeps, and what the probe may not touch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from digit_files import blobs
from torch import Tensor

from dinov2_noise.errors import DivergedError
from dinov2_noise.toy.model import Encoder, toy_loss
from dinov2_noise.toy.seeding import Stream, generator
from dinov2_noise.toy.train import Digits, Optimization, Stage, add_noise, batches, pretrain, probe
from dinov2_noise.toy.views import apply_views, draw_views

SLOW = Optimization(1e-3, 32)


def _bars(count: int = 300, seed: int = 0) -> Digits:
    images, labels = blobs(count, seed)
    return Digits(torch.from_numpy(images).float() / 255, torch.from_numpy(labels.astype(np.int64)))


def _weights(encoder: Encoder) -> Tensor:
    return torch.cat([value.detach().flatten() for value in encoder.parameters()])


def _encoder() -> Encoder:
    return Encoder(generator(0, Stream.INIT))


def test_noise_is_added_then_clipped() -> None:
    grey = torch.full((200, 28, 28), 0.5)
    noisy = add_noise(grey, 0.1, generator(0, Stream.NOISE))
    assert noisy.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert noisy.std().item() == pytest.approx(0.1, abs=2e-3)
    black = add_noise(torch.zeros(200, 28, 28), 0.4, generator(0, Stream.NOISE))
    assert black.min().item() == 0
    assert black.mean().item() == pytest.approx(
        0.4 / np.sqrt(2 * np.pi), abs=3e-3
    )  # half of a normal; 1 is 2.5 std away
    assert add_noise(grey, 9.0, generator(0, Stream.NOISE)).max().item() == 1


def test_batches_are_full_and_every_digit_comes_once_in_each_pass() -> None:
    found = [*batches(10, 4, 5, generator(0, Stream.ORDER))]
    assert [len(batch) for batch in found] == [4] * 5
    row = torch.cat(found)
    assert sorted(row[:10].tolist()) == sorted(row[10:].tolist()) == list(range(10))
    assert row[:10].tolist() != row[10:].tolist()


def test_one_step_by_hand() -> None:
    """Noise of its own in each view, added before the views; one covariance of both; Adam."""
    digits, ours, theirs = _bars(), _encoder(), _encoder()
    pretrain(ours, Stage(digits.images, 0.4, 1), SLOW, seed=5, part=1)
    chosen = torch.randperm(300, generator=generator(5, Stream.ORDER, 1))[:32]
    clean = digits.images[chosen]
    noisy = add_noise(torch.cat([clean, clean]), 0.4, generator(5, Stream.NOISE, 1))
    assert (noisy[:32] - noisy[32:]).abs().max() > 0.5
    seen = apply_views(noisy, draw_views(64, 28, generator(5, Stream.VIEWS, 1)))
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    toy_loss(theirs(seen[:32]), theirs(seen[32:])).backward()
    adam.step()
    torch.testing.assert_close(_weights(ours), _weights(theirs), rtol=0, atol=2e-5)  # of steps of 1e-3


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    digits, before = _bars(), torch.get_rng_state()
    runs = []
    for seed in (1, 1, 2):
        encoder = _encoder()
        pretrain(encoder, Stage(digits.images, 0.4, 3), SLOW, seed=seed, part=0)
        runs.append(_weights(encoder))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_switch_keeps_the_weights_and_begins_with_a_fresh_adam() -> None:
    digits, encoder = _bars(), _encoder()
    pretrain(encoder, Stage(digits.images, 0.0, 4), SLOW, seed=1, part=0)
    before = _weights(encoder)
    pretrain(encoder, Stage(digits.images, 0.4, 1), SLOW, seed=1, part=1)
    moved = (_weights(encoder) - before).abs()
    # The first step of a fresh Adam moves every weight with a gradient by the learning rate, whatever was before.
    assert moved.max().item() == pytest.approx(1e-3, rel=1e-3)
    assert moved.median().item() == pytest.approx(1e-3, rel=1e-2)


def test_the_first_steps_of_a_longer_run_are_those_of_a_shorter() -> None:
    digits, longer, shorter = _bars(), _encoder(), _encoder()
    kept: dict[int, Tensor] = {}
    stage = Stage(digits.images, 0.0, 6)
    pretrain(longer, stage, SLOW, seed=1, part=0, on_step=lambda step: kept.update({step: _weights(longer)}))
    pretrain(shorter, Stage(digits.images, 0.0, 4), SLOW, seed=1, part=0)
    assert [*kept] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(kept[4], _weights(shorter))


def test_a_loss_that_is_not_finite_is_one_error() -> None:
    with pytest.raises(DivergedError, match=r"at step [12] of 3: use a lower --speed-up"):
        pretrain(_encoder(), Stage(_bars().images, 0.0, 3), Optimization(1e30, 32), seed=0, part=0)


def test_the_probe_learns_and_leaves_the_encoder_as_it_is() -> None:
    encoder, train, test = _encoder(), _bars(), _bars(100, seed=7)
    before = _weights(encoder)
    quick = Optimization(1e-2, 64)
    accuracies = [probe(encoder, train, test, quick, steps=steps, noise_std=0.0, seed=0) for steps in (1, 100)]
    assert accuracies[1] > 0.9 > accuracies[0]
    assert torch.equal(_weights(encoder), before)
    assert probe(encoder, train, test, quick, steps=100, noise_std=0.0, seed=0) == accuracies[1]
    assert probe(encoder, train, test, quick, steps=100, noise_std=5.0, seed=0) < accuracies[1]
