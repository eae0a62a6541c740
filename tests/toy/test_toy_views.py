"""Views of a whole batch are those that torchvision makes image by image, and are drawn as it draws them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from dinov2_noise.toy.seeding import Stream, generator
from dinov2_noise.toy.views import Views, apply_views, draw_views

SIDE = 28


def _images(count: int) -> Tensor:
    return torch.rand(count, SIDE, SIDE, generator=generator(0, Stream.ORDER))


def _by_torchvision(image: Tensor, views: Views, index: int) -> Tensor:
    from torchvision.transforms import InterpolationMode, functional

    box = [int(value[index]) for value in (views.top_px, views.left_px, views.height_px, views.width_px)]
    cropped = functional.resized_crop(image[None], *box, [SIDE, SIDE], InterpolationMode.BILINEAR, antialias=True)
    moved = functional.affine(
        cropped,
        angle=float(views.angle_deg[index]),
        translate=[int(views.right_px[index]), int(views.down_px[index])],
        scale=float(views.zoom[index]),
        shear=[float(views.shear_deg[index]), 0.0],
        interpolation=InterpolationMode.NEAREST,
    )
    return moved[0]


def test_views_equal_those_of_torchvision() -> None:
    images, views = _images(100), draw_views(100, SIDE, generator(3, Stream.VIEWS))
    ours = apply_views(images, views)
    theirs = torch.stack([_by_torchvision(image, views, index) for index, image in enumerate(images)])
    differing = (ours - theirs).abs() > 1e-5
    # Where a place lies halfway between two pixels, rounding errors decide which is nearest.
    assert differing.float().mean() < 1e-4


def test_geometry_is_distributed_as_that_of_torchvision() -> None:
    from torchvision.transforms import RandomAffine, RandomResizedCrop

    count = 4000
    views = draw_views(count, SIDE, generator(4, Stream.VIEWS))
    image = torch.zeros(1, SIDE, SIDE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        crops = np.array([RandomResizedCrop.get_params(image, [0.8, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
        moves = [
            RandomAffine.get_params([-15, 15], [0.1, 0.1], [0.95, 1.05], [-10, 10], [SIDE, SIDE]) for _ in range(count)
        ]
    theirs = np.column_stack([crops, [[angle, *shift, zoom, shear[0]] for angle, shift, zoom, shear in moves]])
    for name, ours, other in zip(Views._fields, views, theirs.T, strict=True):
        assert ks_2samp(ours.numpy(), other).pvalue > 1e-3, name
    assert set(views.right_px.tolist()) == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}


def _geometry(**changed: float) -> Views:
    still = dict.fromkeys(Views._fields, 0.0) | {"height_px": SIDE, "width_px": SIDE, "zoom": 1.0} | changed
    return Views(**{name: torch.tensor([float(value)]) for name, value in still.items()})


def test_no_movement_is_the_image_itself() -> None:
    image = _images(1)
    torch.testing.assert_close(apply_views(image, _geometry()), image, rtol=0, atol=1e-6)


def test_a_translation_moves_right_and_down_and_fills_with_black() -> None:
    image = _images(1)
    moved = apply_views(image, _geometry(right_px=2, down_px=1))
    torch.testing.assert_close(moved[0, 1:, 2:], image[0, :-1, :-2])
    assert moved[0, 0].abs().max() == 0
    assert moved[0, :, :2].abs().max() == 0


@pytest.mark.parametrize("angle", [90.0, -90.0])
def test_a_quarter_turn(angle: float) -> None:
    image = _images(1)
    turned = apply_views(image, _geometry(angle_deg=angle + 1e-4))
    torch.testing.assert_close(turned[0], torch.rot90(image[0], -1 if angle > 0 else 1), rtol=0, atol=1e-6)


def test_the_same_generator_gives_the_same_views() -> None:
    first, again = (draw_views(50, SIDE, generator(5, Stream.VIEWS)) for _ in range(2))
    other = draw_views(50, SIDE, generator(6, Stream.VIEWS))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.angle_deg, other.angle_deg)
    assert ((first.top_px + first.height_px <= SIDE) & (first.left_px + first.width_px <= SIDE)).all()
