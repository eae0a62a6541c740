"""The fast augmentation against torchvision's transforms, crop by crop, on photographs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from augment_chains import PHOTOGRAPHS, changes, geometry, levels, photograph, planes
from PIL import Image
from torchvision.transforms import functional as tvf

from dinov2_noise.augment import fast
from dinov2_noise.augment.chains import read
from dinov2_noise.augment.fast import FastCrops, pixels_of, render
from dinov2_noise.augment.replay import rng_scope

GLOBAL, LOCAL = (224, (0.32, 1.0)), (96, (0.05, 0.32))
# Top, left, height, width, and the side it is resized to: smaller, larger, as it is, and hardly anything.
BOXES = ((20, 30, 300, 340, 224), (50, 60, 70, 61, 96), (100, 101, 96, 96, 96), (3, 400, 1, 2, 48))


def chain(number: int) -> tuple[object, object]:
    """The first and second global crop, and the local one, as DINOv2 makes them."""
    settings = ((GLOBAL, 0.0, 0.0), (GLOBAL, 0.9, 0.2), (LOCAL, 0.5, 0.0))[number]
    return geometry(*settings[0]), changes(*settings[1:])


def fast_crops(n_local: int = 2) -> FastCrops:
    return FastCrops([read(*chain(0)), read(*chain(1))], read(*chain(2)), n_local)


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_a_resized_part_is_pillows_within_a_level_or_two(box: tuple[int, int, int, int, int]) -> None:
    image, (*part, px) = photograph("astronaut"), box
    found = fast.crop(pixels_of(image), *part, px, px)
    expected = planes(tvf.resized_crop(image, *part, [px, px], tvf.InterpolationMode.BICUBIC))
    difference = np.abs(found - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.02


def test_a_part_does_not_see_what_is_around_it() -> None:
    image = np.zeros((60, 60, 3), dtype=np.uint8)
    image[10:30, 10:30] = 200
    assert fast.crop(image, 10, 10, 20, 20, 32, 32).min() == 200


@pytest.mark.parametrize("sigma_px", [0.1, 0.3, 0.5, 1.0, 1.7, 2.0])
@pytest.mark.parametrize("px", [16, 48, 97])
def test_a_blur_is_torchvisions(px: int, sigma_px: float) -> None:
    image = photograph("chelsea", px, px + 3)
    found = planes(image)
    fast.blur(found, 4, sigma_px)
    difference = np.abs(found - planes(tvf.gaussian_blur(image, [9, 9], [sigma_px, sigma_px])))
    assert difference.max() <= 1
    assert difference.mean() < 3e-3, "one value of this picture at most, or some of a hundred thousand"


def test_an_unrounded_blur_keeps_the_mean_and_is_torchvisions_on_floating_point() -> None:
    start = planes(photograph("chelsea", 80, 60))
    found = start.copy()
    fast.blur(found, 4, 1.3, eight_bit=False)
    expected = tvf.gaussian_blur(torch.from_numpy(start).double(), [9, 9], [1.3, 1.3])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    flat = np.full((3, 20, 30), 77, dtype=np.float32)
    fast.blur(flat, 4, 2.0, eight_bit=False)
    np.testing.assert_allclose(flat, 77, rtol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["first global", "second global", "local"])
def test_crops_are_torchvisions_within_rounding(number: int) -> None:
    """The same view with the same colours.

    A level that resizing puts elsewhere may move a hue, which Pillow truncates to 8 bits, by a step: up to 6 levels.
    And it may round the mean luma of a crop the other way: half a level for all of it.
    """
    shape, change = chain(number)
    draws = read(shape, change)
    means, largest = [], []
    for seed in range(20):
        image = photograph(PHOTOGRAPHS[seed % 3])
        with rng_scope(seed):
            expected = levels(change(shape(image)))
            after = torch.rand(())
        with rng_scope(seed):
            found = render(pixels_of(image), draws, draws.draw(375, 500))
            assert torch.equal(torch.rand(()), after)
        difference = np.abs(levels(found) - expected)
        means.append(difference.mean())
        largest.append([np.quantile(difference, 0.99), difference.max()])
    assert np.mean(means) < 0.1
    assert np.max(means) < 0.6
    assert np.all(np.max(largest, axis=0) <= (4.01, 12.01)), "of 99 % of the values, and of all"


def test_only_resizing_and_blur_differ() -> None:
    """Given pixels that neither touches, the whole chain is torchvision's, normalisation included, bit by bit."""
    image = photograph("astronaut", 96, 96)
    shape, change = geometry(96, (1.0, 1.0)), changes(0.0, 0.5)
    shape.transforms[0].ratio = (1.0, 1.0)
    draws = read(shape, change)
    same = 0
    for seed in range(40):
        with rng_scope(seed):
            expected = change(shape(image))
        with rng_scope(seed):
            found = render(pixels_of(image), draws, draws.draw(96, 96))
        same += torch.equal(found, expected)
    assert same >= 38, "a change of hue may be one level off in some pixels of a million"


def test_a_twin_gets_the_same_view_and_costs_no_draw() -> None:
    image, other = photograph("coffee"), photograph("chelsea")
    crops = fast_crops()
    with rng_scope(4):
        alone = crops(image)
        after = torch.rand(())
    with rng_scope(4):
        same = crops(image, image.copy())
    with rng_scope(4):
        pair = crops(image, other)
        assert torch.equal(torch.rand(()), after)
    with rng_scope(4):
        swapped = crops(other, image)
    for mine, twin in zip(same["global_crops"], same["global_crops_anchor"], strict=True):
        assert torch.equal(mine, twin)
    for name in ("global_crops", "local_crops"):
        assert all(torch.equal(a, b) for a, b in zip(alone[name], pair[name], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(pair["global_crops_anchor"], swapped["global_crops"], strict=True))
    assert "global_crops_anchor" not in alone
    assert pair["global_crops_teacher"][0] is pair["global_crops"][0]


def test_statistics_of_many_crops_are_torchvisions() -> None:
    """Means and spreads over draws of its own, without a common seed: six standard errors."""
    shape, change = chain(2)
    draws, count = read(shape, change), 150
    rows: dict[str, list[tuple[float, float]]] = {"fast": [], "torchvision": []}
    image = photograph("coffee")
    for seed in range(count):
        with rng_scope(seed):
            ours = render(pixels_of(image), draws, draws.draw(375, 500))
            theirs = change(shape(image))
        rows["fast"].append((float(ours.mean()), float(ours.std())))
        rows["torchvision"].append((float(theirs.mean()), float(theirs.std())))
    ours_, theirs_ = np.array(rows["fast"]), np.array(rows["torchvision"])
    error = np.hypot(ours_.std(0), theirs_.std(0)) / count**0.5
    assert np.all(np.abs(ours_.mean(0) - theirs_.mean(0)) < 6 * error)
    assert np.all(np.abs(np.log(ours_.std(0) / theirs_.std(0))) < 0.4)


def test_pixels_of_depth_are_rounded_nowhere() -> None:
    """A ramp of 4096 values in a range of 16 levels; with 8-bit values the result agrees to a level."""
    shape, change = geometry(96, (0.9, 1.0)), changes(0.5, 0.0)
    draws = read(shape, change)
    ramp = np.broadcast_to(np.linspace(0.5, 0.5 + 16 / 255, 4096).reshape(64, 64, 1), (64, 64, 3)).astype(np.float32)
    for seed in range(10):
        with rng_scope(seed):
            deep = render(ramp, draws, draws.draw(64, 64))
        with rng_scope(seed):
            shallow = render(np.rint(255 * ramp).astype(np.uint8), draws, draws.draw(64, 64))
        assert len(np.unique(levels(deep)[0].round(4))) > 1000
        assert len(np.unique(levels(shallow)[0].round(4))) < 60
        assert np.abs(levels(deep) - levels(shallow)).mean() < 2.5
    photo = photograph("astronaut")
    draws = read(*chain(1))
    for seed in range(6):
        with rng_scope(seed):
            deep = render((np.asarray(photo) / 255).astype(np.float32), draws, draws.draw(375, 500))
        with rng_scope(seed):
            shallow = render(pixels_of(photo), draws, draws.draw(375, 500))
        assert np.abs(levels(deep) - levels(shallow)).mean() < 2.5, "truncated up to five times"


def test_the_number_of_threads_does_not_matter() -> None:
    crops, found, before = fast_crops(2), [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with rng_scope(2):
            found.append(crops(photograph("coffee"), photograph("chelsea")))
    torch.set_num_threads(before)
    for name in ("global_crops", "global_crops_anchor", "local_crops"):
        assert all(torch.equal(a, b) for a, b in zip(*(sample[name] for sample in found), strict=True))


def test_grey_pictures_and_pickling() -> None:
    image = photograph("coffee").convert("L")
    crops = fast_crops(1)
    copy = pickle.loads(pickle.dumps(crops))
    with rng_scope(3):
        ours = crops(image)
    with rng_scope(3):
        theirs = copy(Image.merge("RGB", [image] * 3))
    assert torch.equal(ours["global_crops"][1], theirs["global_crops"][1])
    assert [crop.shape[-1] for crop in (*ours["global_crops"], *ours["local_crops"])] == [224, 224, 96]
    assert all(crop.dtype == torch.float32 and crop.is_contiguous() for crop in ours["global_crops"])


def test_arrays_are_taken_as_pictures_are() -> None:
    """8-bit pixels are the picture; those of greater depth differ by rounding only, twins included."""
    image, twin = photograph("astronaut"), photograph("coffee")
    crops, found = fast_crops(1), []
    for one, other in (
        (image, twin),
        (np.asarray(image), np.asarray(twin)),
        (np.asarray(image) / 255, np.asarray(twin) / 255),
    ):
        with rng_scope(8):
            found.append(crops(one, other))
    pictures, pixels, deep = found
    for name in ("global_crops", "global_crops_anchor", "local_crops"):
        for expected, same, near in zip(pictures[name], pixels[name], deep[name], strict=True):
            assert torch.equal(expected, same)
            assert near.dtype == torch.float32
            assert 0 < np.abs(levels(near) - levels(expected)).mean() < 2.5
