"""The training loop: schedule, determinism, continuation, failure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


def weights_of(model: nn.Module) -> torch.Tensor:
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


@pytest.mark.parametrize(
    "settings",
    [{}, {"ema": 0.9, "precision": "bf16"}, {"ema": 0.9, "precision": "fp16", "stride": 2, "crop_px": 128, "steps": 3}],
)
def test_continued_run_ends_with_the_same_state(settings: dict[str, Any]) -> None:
    config, data = replace(SMALL, **settings), images(5, 130, 140)
    whole = Trainer(data, config)
    list(whole.steps())
    begun = Trainer(data, config)
    steps = begun.steps()
    for _ in range(2):
        next(steps)
    state = begun.state_dict()
    continued = Trainer(data, config)
    continued.load_state_dict(state)
    assert [record.step for record in continued.steps()][:1] == [3]
    assert torch.equal(weights_of(whole.model), weights_of(continued.model))
    assert torch.equal(weights_of(whole.denoiser()), weights_of(continued.denoiser()))
    assert whole.state_dict().get("scaler") == continued.state_dict().get("scaler")
    assert ("ema" in state, "scaler" in state) == ("ema" in settings, settings.get("precision") == "fp16")


def test_mean_of_the_weights_is_the_recursion_written_out() -> None:
    trainer = Trainer(images(), replace(SMALL, steps=6, ema=0.4))
    mean = weights_of(trainer.model).double()
    for step, _ in enumerate(trainer.steps(), start=1):
        decay = min(0.4, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weights_of(trainer.model).double()
        torch.testing.assert_close(weights_of(trainer.denoiser()).double(), mean, rtol=0, atol=1e-6)
    assert float((weights_of(trainer.denoiser()) - weights_of(trainer.model)).abs().max()) > 1e-5
    # 2/11 * 3/12 * … * 11/20: what is left of the initial weights after 10 steps, with the longest memory.
    trace = torch.tensor([(1 + step) / (10 + step) for step in range(1, 11)], dtype=torch.float64).prod()
    assert float(trace) == pytest.approx(6e-5, rel=0.02)


def test_mean_does_not_change_the_training() -> None:
    plain, averaged = Trainer(images(), SMALL), Trainer(images(), replace(SMALL, ema=0.9))
    assert list(plain.steps()) == list(averaged.steps())
    assert torch.equal(weights_of(plain.model), weights_of(averaged.model))


def test_denoiser_is_a_copy_in_eval_mode() -> None:
    trainer = Trainer(images(), SMALL)
    steps = trainer.steps()
    next(steps)
    early = trainer.denoiser()
    kept = weights_of(early)
    next(steps)
    assert (early.training, trainer.model.training) == (False, True)
    assert torch.equal(weights_of(early), kept)
    assert not torch.equal(weights_of(trainer.denoiser()), kept)
    assert torch.equal(weights_of(trainer.denoiser()), weights_of(trainer.model))


def smooth_images(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(count, 3, 5, 5, generator=generator), size=(64, 64), mode="bicubic").clamp(0, 1)


def test_bf16_learns_as_well_as_fp32() -> None:
    """PSNR on unseen images after the same short run; measured: 14.0 dB noisy, 16.35 dB fp32, 16.34 dB bf16."""
    generator = torch.Generator().manual_seed(0)
    clean, unseen = smooth_images(8, 1), smooth_images(4, 2)
    noisy, unseen_noisy = (image + 0.2 * torch.randn(image.shape, generator=generator) for image in (clean, unseen))
    config = replace(SMALL, steps=40, learning_rate=2e-2)

    def psnr_db(precision: str) -> float:
        model = train([*noisy], replace(config, precision=precision))
        with torch.no_grad():
            return float(-10 * (model(unseen_noisy) - unseen).square().mean().log10())

    full = psnr_db("fp32")
    assert full > 15.5
    assert psnr_db("bf16") == pytest.approx(full, abs=0.3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2), ("fp16", 1e-2)])
def test_gpu_draws_the_same_and_finds_the_same_loss(precision: str, tolerance: float) -> None:
    config = replace(SMALL, precision=precision, ema=0.9)
    on_cpu = next(Trainer(images(), replace(config, precision="fp32")).steps())
    on_gpu = next(Trainer(images(), config, device="cuda").steps())
    assert on_gpu == pytest.approx(on_cpu, rel=tolerance)


def test_gradients_flow_to_the_weights_at_reduced_precision() -> None:
    """Copies of the weights that autocast made without gradients must not serve the pass with gradients."""
    trainer = Trainer(images(), replace(SMALL, precision="bf16", residual=False))
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    next(trainer.steps())
    assert all(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}


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
    for name, value in (("learning_rate", float("nan")), ("gamma", -1.0), ("increase_ratio", float("inf"))):
        with pytest.raises(ValueError, match=name):
            TrainingConfig(**{name: value})
    with pytest.raises(ValueError, match="fractions of the run"):
        TrainingConfig(milestones=(20.0, 40.0))
    for ema in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="ema must lie between 0 and 1"):
            TrainingConfig(ema=ema)
    with pytest.raises(ValueError, match="precision 'half' is unknown: choose one of fp32, bf16, fp16"):
        TrainingConfig(precision="half")
    with pytest.raises(ValueError, match="no images"):
        Trainer([], SMALL)
    with pytest.raises(ValueError, match="60x64 px, smaller than the crop of 64 px"):
        train(images(1, 64, 60), SMALL)
