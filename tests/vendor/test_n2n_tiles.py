"""Tiles: how an image is cut, that tiles which see enough change nothing, and how they are blended."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import nn

from neighbor2neighbor import UNet, denoise_padded
from neighbor2neighbor.tiles import Tiles, plan_tiles, run_tiles, smallest_pass

SEED = 0


def random_images(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(SEED))


@pytest.mark.parametrize(
    ("height", "width", "max_pixels", "multiple"),
    [
        (4000, 6016, 2048**2, 32),
        (4000, 6016, 1_000_000, 32),
        (2112, 64, 192**2, 32),
        (64, 2112, 192**2, 32),
        (1024, 1024, 192**2, 32),
        (1024, 1024, 40_000, 32),
        (1024, 1024, 384**2, 64),
        (2048, 4096, 2048**2, 64),
        (512, 384, 512 * 384, 32),
    ],
)
def test_tiles_cover_the_image_stay_on_the_grid_and_share_enough(
    height: int, width: int, max_pixels: int, multiple: int
) -> None:
    tiles = plan_tiles(height, width, max_pixels=max_pixels, multiple_px=multiple)
    assert tiles.height * tiles.width <= max_pixels
    context = min(5, int(max_pixels**0.5) // (6 * multiple)) * multiple
    for side, tile, starts in ((height, tiles.height, tiles.tops), (width, tiles.width, tiles.lefts)):
        assert all(value % multiple == 0 for value in (tile, *starts))
        assert starts[0] == 0
        assert starts[-1] + tile == side
        for first, second in pairwise(starts):
            assert second > first
            assert first + tile - second >= 2 * context + tiles.blend_px


def test_an_image_that_fits_is_one_tile() -> None:
    tiles = plan_tiles(512, 384, max_pixels=512 * 384, multiple_px=32)
    assert (tiles.height, tiles.width, tiles.tops, tiles.lefts) == (512, 384, [0], [0])


def test_the_reach_of_the_network_is_157_px() -> None:
    """The figure behind the tiles' context: 157 px away an input matters, one further it does not."""
    torch.manual_seed(SEED)
    model = UNet(n_feature=2, generator=torch.Generator().manual_seed(SEED)).double().eval()
    for module in model.modules():  # all paths open: positive weights, so that no ReLU hides one
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.uniform_(module.weight, 0.1, 1.0)
    length, reach = 1024, 0
    for place in (450, 477):  # the third and the third last pixel of a cell of the deepest pooling see furthest
        # max-pooling passes the gradient to the largest input alone: let each input be the largest once
        far = []
        for rising in (False, True):
            ramp = torch.linspace(0, 1, length, dtype=torch.float64)
            image = (ramp if rising else ramp.flip(0)).expand(1, 3, 32, length).contiguous().requires_grad_()
            model(image)[0, :, :, place].sum().backward()
            touched = image.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()  # type: ignore[union-attr]
            far += [place - int(touched.min()), int(touched.max()) - place]
        reach = max(reach, *far)
    assert reach == 157


@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [
        (64, 16000, plan_tiles(64, 16000, max_pixels=1_000_000, multiple_px=32)),
        (704, 704, Tiles(544, 544, tops=[0, 160], lefts=[0, 160], blend_px=32)),
    ],
)
def test_tiles_that_see_enough_change_nothing(height: int, width: int, tiles: Tiles) -> None:
    model = UNet(n_feature=2, generator=torch.Generator().manual_seed(SEED)).eval()
    images = random_images(height, width)
    with torch.no_grad():
        whole, tiled = model(images), run_tiles(model, images, tiles)
    assert len(tiles.tops) * len(tiles.lefts) > 1
    assert whole.std() > 0.1
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)  # 0.003 levels: sums in another order


def test_weights_sum_to_one_to_the_bit_where_tiles_agree() -> None:
    images = random_images(512, 384)
    for dtype in (torch.float32, torch.bfloat16):
        tiles = plan_tiles(512, 384, max_pixels=smallest_pass(32), multiple_px=32)
        assert len(tiles.tops) * len(tiles.lefts) > 8
        assert torch.equal(run_tiles(lambda x: x, images.to(dtype), tiles), images.to(dtype))


def test_one_tile_gives_way_to_the_next_over_the_blend_alone() -> None:
    tiles = plan_tiles(32, 512, max_pixels=smallest_pass(32), multiple_px=32)
    assert tiles.lefts == [0]  # 32 x 512 px fit
    tiles = plan_tiles(192, 512, max_pixels=smallest_pass(32), multiple_px=32)
    numbers = iter(range(len(tiles.lefts)))
    output = run_tiles(lambda x: torch.full_like(x, next(numbers)), torch.zeros(1, 1, 192, 512), tiles)[0, 0]
    assert torch.equal(output, output[:1].expand_as(output))
    step = output[0].diff()
    assert step.min() >= 0
    assert step.max() < 0.06  # pi / 2 / 32 px
    assert int((step > 0).sum()) == (len(tiles.lefts) - 1) * (tiles.blend_px + 1)
    assert (output[0, 0], output[0, -1]) == (0, len(tiles.lefts) - 1)


def test_pooling_cells_are_those_of_the_whole_image() -> None:
    class Local(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + nn.functional.interpolate(nn.functional.max_pool2d(x, 32), scale_factor=32)

    images = random_images(448, 512)
    assert torch.equal(denoise_padded(Local(), images, max_pixels=192**2), Local()(images))


def test_too_small_a_budget_is_refused() -> None:
    for multiple, smallest in product((32, 64), (36_864,)):
        with pytest.raises(ValueError, match=f"at least {smallest * (multiple // 32) ** 2}"):
            plan_tiles(512, 512, max_pixels=smallest * (multiple // 32) ** 2 - 1, multiple_px=multiple)
