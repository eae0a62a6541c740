"""The position grid for another image size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinov2_noise.errors import CheckpointError
from dinov2_noise.weights import Weights, load_backbone
from dinov2_noise.weights.positions import resize_positions


def _weight(distance: float) -> float:
    """Cubic convolution kernel of Keys (1981) with a = -0.75, PyTorch's."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def _matrix(n: int, m: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Interpolation from n samples to m, pixel centres at half-integers, edges repeated."""
    matrix = np.zeros((m, n))
    for row in range(m):
        centre = (row + 0.5) * n / m - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[row, min(max(tap, 0), n - 1)] += _weight(centre - tap)
    return matrix


@pytest.mark.parametrize("grid", [(16, 16), (7, 7), (40, 40), (5, 9)])
def test_equal_to_bicubic_written_out(grid: tuple[int, int]) -> None:
    positions = torch.randn(1, 1 + 37 * 37, 6, generator=torch.Generator().manual_seed(0))
    resized = resize_positions(positions, grid)
    square = positions[0, 1:].reshape(37, 37, 6).double().numpy()
    expected = np.einsum("ri,cj,ijd->rcd", _matrix(37, grid[0]), _matrix(37, grid[1]), square)
    np.testing.assert_allclose(resized[0, 1:].reshape(*grid, 6), expected, atol=1e-5)
    assert torch.equal(resized[:, :1], positions[:, :1]), "the CLS position is kept"


def test_same_grid_is_the_identity_and_half_precision_becomes_float32() -> None:
    positions = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_positions(positions, (4, 4)), positions)
    half = resize_positions(positions.half(), (6, 6))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, resize_positions(positions.half().float(), (6, 6)), rtol=0, atol=0)


def test_a_smooth_function_stays_the_same_function() -> None:
    def sampled(n: int) -> torch.Tensor:
        x = (torch.arange(n) + 0.5) / n
        return torch.sin(3 * x)[:, None] * torch.cos(2 * x)[None, :]

    positions = torch.cat((torch.zeros(1, 1, 1), sampled(16).reshape(1, 256, 1)), dim=1)
    for n in (12, 37):
        error = (resize_positions(positions, (n, n))[0, 1:].reshape(n, n) - sampled(n)).abs()
        inside = slice(n // 8, -(n // 8))
        assert error[inside, inside].max() < 0.01
        assert error.max() < 0.05, "edges are repeated, not continued"


def test_not_square_cannot_be_resized() -> None:
    with pytest.raises(ValueError, match="6 patch positions are no square grid"):
        resize_positions(torch.zeros(1, 7, 4), (3, 3))


@pytest.mark.upstream
def test_released_grid_into_a_smaller_model(vit: Any, tmp_path: Path) -> None:
    released, model = vit(img_size=518), vit(img_size=112, block_chunks=2, seed=1)
    report = load_backbone(model, Weights("w", "upstream backbone", released.state_dict(), {}), required_percent=100)
    assert "resized    pos_embed                       37 x 37 -> 8 x 8 patches" in report.table()
    assert torch.equal(model.pos_embed, resize_positions(released.pos_embed, (8, 8)))


@pytest.mark.upstream
def test_smooth_positions_mean_what_upstream_takes_them_for(vit: Any) -> None:
    """Upstream's own resizing, at each forward pass, has the scale (8 + 0.1) / 37 instead of 8 / 37."""
    released, model = vit(img_size=518), vit(img_size=112)
    with torch.no_grad():
        places = torch.linspace(0, 1, 37)
        waves = torch.sin(torch.linspace(1, 4, 64) * places[:, None, None] + 2 * places[None, :, None])
        released.pos_embed[:, 1:] = waves.reshape(1, 37 * 37, 64)
        load_backbone(model, Weights("w", "upstream backbone", released.state_dict(), {}))
        theirs = released.interpolate_pos_encoding(torch.zeros(1, 65, 64), 112, 112)
    assert theirs.std() > 0.4
    assert (model.pos_embed - theirs).abs().max() < 0.1


@pytest.mark.upstream
def test_a_rectangular_grid_must_agree(vit: Any) -> None:
    wide = vit(img_size=(56, 84))
    weights = Weights("w", "upstream backbone", wide.state_dict(), {})
    assert load_backbone(vit(img_size=(56, 84), seed=1), weights, required_percent=100).count("loaded") == 63
    square = Weights("w", "upstream backbone", vit().state_dict(), {})
    model = vit(img_size=(56, 84), seed=1)
    assert load_backbone(model, square).count("resized") == 1
    assert torch.equal(model.pos_embed, resize_positions(vit().pos_embed, (4, 6)))
    with pytest.raises(CheckpointError, match=r"pos_embed .*shape \(1, 25, 64\) in the file"):
        load_backbone(vit(), weights, required_percent=100)
