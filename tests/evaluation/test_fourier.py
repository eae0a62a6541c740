"""Fourier basis images, the perturbation made of them, and a classifier that is hit at one frequency only."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dinov2_noise.errors import CheckpointError, ConfigError, OutputFolderError
from dinov2_noise.evaluation.fourier import (
    FourierGrid,
    Frequency,
    Pictures,
    Predict,
    basis_image,
    canonical,
    count_right,
    perturbed,
    random_signs,
    spread,
)
from dinov2_noise.evaluation.fourier_map import HeatMapFolder
from dinov2_noise.report.fourier_figures import fourier_map

SIDES = pytest.mark.parametrize("side", [8, 9])


def all_canonical(side: int) -> list[Frequency]:
    return sorted({canonical((row, column), side) for row in range(side) for column in range(side)})


@SIDES
def test_basis_images_are_orthonormal(side: int) -> None:
    images = torch.stack([basis_image(frequency, side).ravel() for frequency in all_canonical(side)])
    torch.testing.assert_close(images @ images.T, torch.eye(len(images)).double(), rtol=0, atol=1e-12)
    assert len(images) == (side**2 + (4 if side % 2 == 0 else 1)) // 2


@SIDES
def test_a_basis_image_is_real_with_energy_at_its_frequency_and_the_opposite_one_only(side: int) -> None:
    for row, column in all_canonical(side):
        image = basis_image((row, column), side)
        assert image.dtype == torch.float64
        energy = torch.fft.fft2(image, norm="ortho").abs() ** 2
        places = {(row % side, column % side), (-row % side, -column % side)}
        assert sum(float(energy[place]) for place in places) == pytest.approx(1, abs=1e-12)
        assert float(energy.sum()) == pytest.approx(1, abs=1e-12)


@SIDES
def test_frequencies_with_the_same_image_are_measured_once(side: int) -> None:
    for row in range(-side, side):
        for column in range(-side, side):
            one = canonical((row, column), side)
            assert (
                one == canonical(one, side) == canonical((-row, -column), side) == canonical((row + side, column), side)
            )
            torch.testing.assert_close(basis_image(one, side), basis_image((row, column), side), rtol=0, atol=1e-12)


def test_the_perturbation_has_its_norm_in_every_channel_and_the_sign_of_the_image() -> None:
    images = torch.full((4, 3, 16, 16), 0.5, dtype=torch.float64)
    signs = random_signs(range(4), seed=3)
    added = perturbed(images, (2, -5), 1.3, signs) - images
    torch.testing.assert_close(added.norm(dim=(-2, -1)), torch.full((4, 3), 1.3).double())
    expected = 1.3 * signs.double()[:, :, None, None] * basis_image((2, -5), 16)
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-12)


def test_values_are_clipped() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = perturbed(images, (1, 1), 50.0, random_signs(range(2), 0))
    assert (result.min(), result.max()) == (0, 1)
    with pytest.raises(ValueError, match="square"):
        perturbed(images[..., :4], (1, 1), 1.0, random_signs(range(2), 0))


def test_signs_are_fair_and_belong_to_the_image() -> None:
    signs = random_signs(range(4000), seed=1)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert float(signs.mean().abs()) < 4 / np.sqrt(signs.numel())
    assert float((signs[:, 0] * signs[:, 1]).mean().abs()) < 4 / np.sqrt(4000)
    torch.testing.assert_close(random_signs([17, 5], 1), signs[[17, 5]])
    assert (random_signs(range(40), 2) != signs[:40]).any()


def two_classes(seen: Frequency, side: int = 16, n: int = 60) -> tuple[Pictures, Predict]:
    """Images that differ in the sign of one frequency, and the linear classifier that looks at it."""
    pattern = basis_image(seen, side).float()
    targets = torch.arange(n) % 2
    images = 0.5 + 0.5 * (2 * targets - 1)[:, None, None, None] * pattern.expand(n, 3, side, side)
    pictures = Pictures((255 * images).round().to(torch.uint8), targets, random_signs(range(n), 0))

    def predict(shown: Tensor) -> dict[str, Tensor]:
        return {"linear": ((shown - 0.5) * pattern).sum((1, 2, 3)).gt(0).long()}

    return pictures, predict


@pytest.mark.parametrize("seen", [(0, 4), (4, 8), (-4, 4), (8, 8)])
def test_a_classifier_of_one_frequency_is_hit_there_only(seen: Frequency) -> None:
    pictures, predict = two_classes(seen)
    assert count_right(pictures, predict, None, 3.0, 7) == {"linear": 60}
    for frequency in FourierGrid(n=5, side=16).frequencies:
        right = count_right(pictures, predict, frequency, 2.0, 7)["linear"]
        if frequency == canonical(seen, 16):
            assert 20 <= right <= 40  # the signs decide: chance
        else:
            assert right == 60


def test_a_weak_perturbation_does_not_hit_even_there() -> None:
    pictures, predict = two_classes((0, 4))
    assert count_right(pictures, predict, (0, 4), 0.4)["linear"] == 60


@pytest.mark.parametrize(("n", "limit", "side"), [(9, 0.5, 224), (9, 0.5, 16), (5, 0.125, 64), (15, 0.5, 15)])
def test_a_grid_is_symmetric_and_measures_half(n: int, limit: float, side: int) -> None:
    grid = FourierGrid(n, limit, side)
    axis = grid.axis
    assert axis == [-cycles for cycles in reversed(axis)]
    assert axis[n // 2] == 0
    assert max(axis) == round(limit * side)
    assert max(b - a for a, b in pairwise(axis)) - min(b - a for a, b in pairwise(axis)) <= 1
    assert len(grid.frequencies) <= (n * n + 1) // 2
    assert grid.frequencies[0] == (0, 0)
    values = {frequency: float(number) for number, frequency in enumerate(grid.frequencies)}
    filled = np.array(grid.filled(values))
    np.testing.assert_array_equal(filled, filled[::-1, ::-1])
    assert set(filled.ravel()) == set(values.values())


def test_the_default_grid_reaches_from_nyquist_to_nyquist_in_34_measurements() -> None:
    grid = FourierGrid()
    assert grid.axis_cycles_per_px == [-0.5, -0.375, -0.25, -0.125, 0, 0.125, 0.25, 0.375, 0.5]
    assert len(grid.frequencies) == 34  # at Nyquist, opposite edges of the map are the same frequency


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, 0.5, 224), "odd"),
        ((1, 0.5, 224), "odd"),
        ((9, 0.0, 224), "at most 0.5"),
        ((9, 0.6, 224), "at most 0.5"),
        ((9, 0.1, 16), "hold 3 frequencies per axis"),
    ],
)
def test_a_grid_that_cannot_be_is_an_error(arguments: tuple[int, float, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FourierGrid(*arguments)


def test_images_are_spread_evenly() -> None:
    assert list(spread(5, 9)) == [0, 2, 4, 6, 8]
    assert list(spread(500, 3)) == [0, 1, 2]
    assert len(set(spread(300, 3925))) == 300


def folder_of(tmp_path: Path, norm: float = 2.0) -> HeatMapFolder:
    return HeatMapFolder(tmp_path / "map", {"norm": norm}, FourierGrid(n=5, side=16), 60)


def test_a_map_is_measured_in_parts_kept_and_drawn(tmp_path: Path) -> None:
    pictures, predict = two_classes((0, 4))
    asked: list[Frequency | None] = []

    def count(frequency: Frequency | None) -> dict[str, int]:
        asked.append(frequency)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return count_right(pictures, predict, frequency, 2.0)

    folder = folder_of(tmp_path)
    folder.folder.open()
    with pytest.raises(KeyboardInterrupt):
        folder.run(count)
    assert len(folder.pending()) == len(folder.wanted) - 3
    folder.folder.open()
    other_half = folder.run(count, shard=(2, 2))
    assert folder.run(count, shard=(1, 2)) + other_half == len(folder.wanted) - 3
    assert len(asked) == len(folder.wanted) + 1  # what was interrupted was asked twice
    made = folder.heat_map()
    assert made.clean_accuracy == {"linear": 1.0}
    drop = np.array(made.drop("linear"))
    assert (drop > 0.3).sum() == 2  # (0, 4) and (0, -4)
    assert drop[2, 3] == drop[2, 1] == drop.max()
    folder.save(made, {"weights": "w.pth"})
    content = json.loads((folder.path / "fourier.json").read_text())
    assert content["accuracy"]["linear"][2][3] == pytest.approx(1 - drop.max())
    assert content["frequencies_cycles_per_px"] == [-0.5, -0.25, 0, 0.25, 0.5]
    assert fourier_map(made, "linear", title="x").startswith(b"\x89PNG")
    with pytest.raises(OutputFolderError, match="norm"):
        folder_of(tmp_path, norm=3.0).folder.open()


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.folder.open()
    folder.run(lambda _: {"linear": 1})
    folder.file((0, 4)).write_text('{"right": 3}')
    with pytest.raises(CheckpointError, match=r"0_4\.json"):
        folder.heat_map()
