"""Whole images: padding, tiles, rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neighbor2neighbor import UNet, denoise_batch, denoise_image, to_uint8


class Watching(nn.Module):
    """The identity; remembers its inputs and insists on sides of a multiple of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] % 32 == 0
        assert x.shape[-2] % 32 == 0
        self.seen.append(x)
        return x


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("height", "width"), [(50, 75), (64, 64), (33, 31), (5, 9), (1, 1), (2100, 70), (70, 2049), (2048, 32)]
)
def test_identity_returns_the_image_exactly(height: int, width: int) -> None:
    image = random_image(height, width)
    assert torch.equal(denoise_image(Watching(), image), image)


def test_padding_reflects_at_the_bottom_and_right() -> None:
    model, image = Watching(), random_image(50, 75)
    denoise_image(model, image)
    (seen,) = model.seen
    assert seen.shape == (1, 3, 64, 96)
    assert torch.equal(seen[0, :, 50:, :75], image[:, 35:49].flip(1))
    assert torch.equal(seen[0, :, :50, 75:], image[:, :, 53:74].flip(2))


def test_images_too_small_to_reflect_repeat_their_border() -> None:
    model, image = Watching(), random_image(5, 40)
    denoise_image(model, image)
    assert torch.equal(model.seen[0][0, :, 5:, :40], image[:, -1:].expand(3, 27, 40))


def test_tiles_begin_above_2048_px_and_are_at_most_1024() -> None:
    model = Watching()
    denoise_image(model, random_image(2048, 40))
    assert [tuple(seen.shape[-2:]) for seen in model.seen] == [(2048, 64)]
    model = Watching()
    denoise_image(model, random_image(2100, 40))
    assert [tuple(seen.shape[-2:]) for seen in model.seen] == [(960, 64), (1024, 64), (384, 64)]


def test_tiles_change_a_network_of_local_reach_nowhere() -> None:
    """Poolings stay aligned with the whole image's, so only what lies beyond the 64 px of context can differ."""

    class Local(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = nn.functional.max_pool2d(x, 32)
            return x + nn.functional.interpolate(pooled, scale_factor=32)

    image = random_image(2112, 32)
    torch.testing.assert_close(denoise_image(Local(), image), Local()(image[None])[0], rtol=0, atol=0)


def test_batch_equals_images_one_by_one() -> None:
    model = UNet(n_feature=4, generator=torch.Generator().manual_seed(0)).eval()
    images = torch.stack([random_image(50, 75), random_image(50, 75).flip(2)])
    output = denoise_batch(model, images)
    for image, expected in zip(images, output, strict=True):
        torch.testing.assert_close(denoise_image(model, image), expected, rtol=1e-5, atol=1e-6)


def test_rounding_is_to_the_nearest_level_and_clips() -> None:
    levels = torch.arange(256, dtype=torch.float64)
    assert torch.equal(to_uint8(levels / 255), levels.to(torch.uint8))
    values = torch.tensor([-0.3, 0.49 / 255, 0.51 / 255, 100.4 / 255, 100.6 / 255, 254.6 / 255, 1.7])
    assert to_uint8(values).tolist() == [0, 0, 1, 100, 101, 255, 255]


def test_broken_output_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        denoise_image(Watching(), torch.full((3, 32, 32), float("nan")))
    with pytest.raises(ValueError, match="returned shape"):
        denoise_image(nn.MaxPool2d(2), random_image(32, 32))
