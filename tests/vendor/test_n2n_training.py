"""The training loop: schedule, determinism, continuation, failure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neighbor2neighbor import (
    StepRecord,
    Trainer,
    TrainingConfig,
    TrainingDivergedError,
    UNet,
    draw_pairs,
    learning_rate_at,
    loss_weight_at,
    subsample,
    train,
)
from neighbor2neighbor.crops import Crops, CropStream, Draw

SMALL = TrainingConfig(steps=4, batch_size=2, crop_px=64, learning_rate=1e-3, n_feature=4, residual=True)


def images(count: int = 5, height: int = 70, width: int = 90) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


def weights_of(model: UNet) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_learning_rate_halves_after_each_fifth_of_the_run() -> None:
    config = TrainingConfig(epochs=5, batch_size=4)
    n_images = 41  # 10 steps an epoch: the last image of an epoch is left out
    assert config.total_steps(n_images) == 50
    rates = [learning_rate_at(step, n_images, config) for step in range(50)]
    assert rates == [3e-4 * 0.5 ** (step // 10) for step in range(50)]


def test_loss_weight_is_constant_within_an_epoch_and_rises_with_steps() -> None:
    by_epoch = TrainingConfig(epochs=2, batch_size=4)
    assert [loss_weight_at(step, 8, by_epoch) for step in range(4)] == [1.0, 1.0, 2.0, 2.0]
    by_step = TrainingConfig(steps=4, batch_size=4)
    assert [loss_weight_at(step, 8, by_step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]


def test_fewer_images_than_a_batch_still_make_an_epoch_of_one_step() -> None:
    assert TrainingConfig(epochs=3, batch_size=4).total_steps(2) == 3


def test_first_step_is_one_adam_step_on_the_loss() -> None:
    """Parity with a step written out by hand on the batch that the stream yields."""
    config = replace(SMALL, steps=1, residual=False)
    data = images()
    trainer = Trainer(data, config)
    model = UNet(n_feature=4)
    model.load_state_dict(trainer.model.state_dict())
    crops = Crops(data, 64, config.seed)
    noisy = torch.stack([crops[draw] for draw in CropStream(len(data), config.seed, 0, 2)])
    pairs: list[torch.Tensor] = []

    def remembering_draw(*arguments: object) -> torch.Tensor:
        pairs.append(draw_pairs(*arguments))  # type: ignore[arg-type]
        return pairs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neighbor2neighbor.training.draw_pairs", remembering_draw)
        (record,) = trainer.steps()
    g1, g2 = subsample(noisy, pairs[0])
    d1, d2 = subsample(model(noisy).detach(), pairs[0])
    difference = model(g1) - g2
    loss = (difference**2).mean() + 2.0 * ((difference - d1 + d2) ** 2).mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss.backward()
    optimizer.step()
    assert record.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    # Adam's first step is the learning rate times the gradient's sign: rounding may flip signs of gradients near zero.
    moved = (weights_of(trainer.model) - weights_of(model)).abs()
    assert float((moved < 1e-5).double().mean()) > 0.99


def test_records_tell_step_rate_weight_and_loss() -> None:
    records: list[StepRecord] = []
    train(images(), SMALL, records.append)
    assert [(record.step, record.total_steps) for record in records] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [record.weight for record in records] == [0.5, 1.0, 1.5, 2.0]
    # After 0, 25, 50 and 75 % of the run; milestones lie at 20, 40, 60 and 80 %.
    assert [record.learning_rate for record in records] == [1e-3, 5e-4, 2.5e-4, 1.25e-4]
    for record in records:
        assert record.loss == pytest.approx(record.reconstruction + record.regularization, rel=1e-5)


def test_seed_decides_everything() -> None:
    state = torch.random.get_rng_state()
    first = weights_of(train(images(), SMALL))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, weights_of(train(images(), SMALL)))
    assert not torch.equal(first, weights_of(train(images(), replace(SMALL, seed=1))))


def test_two_workers_change_nothing() -> None:
    config = replace(SMALL, steps=2)
    assert torch.equal(weights_of(train(images(), config)), weights_of(train(images(), config, num_workers=2)))


def test_continued_run_ends_with_the_same_weights() -> None:
    whole = Trainer(images(), SMALL)
    list(whole.steps())
    begun = Trainer(images(), SMALL)
    steps = begun.steps()
    for _ in range(2):
        next(steps)
    state = begun.state_dict()
    continued = Trainer(images(), SMALL)
    continued.load_state_dict(state)
    assert [record.step for record in continued.steps()] == [3, 4]
    assert torch.equal(weights_of(whole.model), weights_of(continued.model))


def test_stream_shows_every_image_once_per_pass_and_starts_anywhere() -> None:
    whole = list(CropStream(7, seed=3, first=0, last=21))
    passes = [[draw.image_index for draw in whole[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(indices) == list(range(7)) for indices in passes)
    assert len({tuple(indices) for indices in passes}) > 1
    assert list(CropStream(7, seed=3, first=5, last=17)) == whole[5:17]


def test_crops_reach_every_place_and_keep_the_values() -> None:
    image = torch.arange(66 * 65).reshape(1, 66, 65).expand(3, -1, -1).float()
    crops = Crops([image], 64, seed=0)
    corners = {float(crops[Draw(place, 0)][0, 0, 0]) for place in range(100)}
    assert corners == {row * 65.0 + column for row in range(3) for column in range(2)}
    (eight_bit,) = (Crops([torch.full((3, 64, 64), 51, dtype=torch.uint8)], 64, seed=0)[Draw(0, 0)],)
    torch.testing.assert_close(eight_bit, torch.full((3, 64, 64), 0.2))


def test_nan_stops_with_the_step_named() -> None:
    broken = [torch.full((3, 64, 64), float("nan"))]
    with pytest.raises(TrainingDivergedError, match=r"the loss is nan at step 1 of 4"):
        train(broken, SMALL)


def test_bad_values_and_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        TrainingConfig(crop_px=96)
    with pytest.raises(ValueError, match="batch_size"):
        TrainingConfig(batch_size=0)
    with pytest.raises(ValueError, match="steps"):
        TrainingConfig(steps=0)
    with pytest.raises(ValueError, match="no images"):
        Trainer([], SMALL)
    with pytest.raises(ValueError, match="60x64 px, smaller than the crop of 64 px"):
        train(images(1, 64, 60), SMALL)
