"""Whole images: batches, passes, rounding, what a denoiser may not return."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neighbor2neighbor import DenoiserOutputError, Strided, UNet, denoise_batch, denoise_image, to_uint8


class Watching(nn.Module):
    """The identity; remembers its inputs and insists on sides of a multiple of 32."""

    def __init__(self, side_multiple_px: int | None = None) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        if side_multiple_px is not None:
            self.side_multiple_px = side_multiple_px

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        multiple = getattr(self, "side_multiple_px", 32)
        assert x.shape[-1] % multiple == 0
        assert x.shape[-2] % multiple == 0
        self.seen.append(x)
        return x


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("padding", ["sides", "square"])
@pytest.mark.parametrize(("height", "width"), [(50, 75), (64, 64), (33, 31), (5, 9), (1, 1), (1, 70), (300, 32)])
def test_identity_returns_the_image_exactly(height: int, width: int, padding: str) -> None:
    image = random_image(height, width)
    for model, max_pixels in ((Watching(), 2048**2), (Watching(), 192**2), (Watching(64), 384**2)):
        assert torch.equal(denoise_image(model, image, padding=padding, max_pixels=max_pixels), image)


def test_padding_reflects_at_the_bottom_and_right() -> None:
    model, image = Watching(), random_image(50, 75)
    denoise_image(model, image)
    (seen,) = model.seen
    assert seen.shape == (1, 3, 64, 96)
    assert torch.equal(seen[0, :, 50:, :75], image[:, 35:49].flip(1))
    assert torch.equal(seen[0, :, :50, 75:], image[:, :, 53:74].flip(2))


def test_a_network_tells_what_its_sides_must_be_multiples_of() -> None:
    strided = Strided(Watching(), 2)
    denoise_image(strided, random_image(65, 30))
    assert tuple(strided.net.seen[0].shape) == (4, 3, 64, 32)  # type: ignore[union-attr, index]


def test_a_batch_becomes_smaller_before_an_image_is_cut() -> None:
    images = torch.stack([random_image(200, 250)] * 5)  # padded: 224 x 256 = 57,344 px
    for max_pixels, shapes in (
        (5 * 57_344, [(5, 3, 224, 256)]),
        (5 * 57_344 - 1, [(4, 3, 224, 256), (1, 3, 224, 256)]),
        (57_344, [(1, 3, 224, 256)] * 5),
        (57_343, [(1, 3, 160, 256)] * 10),
    ):
        model = Watching()
        assert torch.equal(denoise_batch(model, images, max_pixels=max_pixels), images)
        assert [tuple(seen.shape) for seen in model.seen] == shapes


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


def test_broken_output_is_refused_and_its_image_known() -> None:
    images = torch.zeros(3, 3, 32, 32)
    images[1, 0, 5, 5] = float("nan")
    with pytest.raises(DenoiserOutputError, match="not finite") as raised:
        denoise_batch(Watching(), images)
    assert raised.value.index == 1
    with pytest.raises(ValueError, match=r"returned shape \(1, 3, 16, 16\) for input \(1, 3, 32, 32\)"):
        denoise_image(nn.MaxPool2d(2), random_image(32, 32))

    class Integers(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 255).to(torch.uint8)

    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return x, None

    for module, kind in ((Integers(), r"a tensor of torch\.uint8"), (Pair(), "a tuple")):
        with pytest.raises(DenoiserOutputError, match=f"returned {kind}, not a tensor of floats"):
            denoise_image(module, random_image(32, 32))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="padding 'round' is unknown: use sides or square"):
        denoise_image(Watching(), random_image(32, 32), padding="round")
    with pytest.raises(ValueError, match="at least 36864, got 36863"):
        denoise_image(Watching(), random_image(32, 32), max_pixels=36_863)
