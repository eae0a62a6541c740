"""Low-pass filters: their gains, what passes and what does not, and the mathematics every such filter obeys."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise.augment.low_pass import FILTERS, check_low_pass, high_pass, low_pass, low_pass_image, transfer

KINDS = pytest.mark.parametrize("kind", FILTERS)
SIZES = pytest.mark.parametrize("size", [(16, 16), (17, 16), (16, 21), (15, 19), (1, 8), (9, 1)])
RNG = np.random.default_rng


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(RNG(seed).random(shape))


def wave(size: int, cycles_y: int, cycles_x: int, phase: float = 0.3) -> Tensor:
    """A cosine of whole cycles over a square image: one frequency, without leakage."""
    y, x = torch.meshgrid(torch.arange(size).double(), torch.arange(size).double(), indexing="ij")
    return torch.cos(2 * math.pi * (cycles_y * y + cycles_x * x) / size + phase)


def slow_low_pass(image: NDArray[np.float64], cutoff: float, kind: str, order: int) -> NDArray[np.float64]:
    """The definition, frequency by frequency over the whole plane, with an explicit Fourier sum."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            fy, fx = min(row, height - row) / height, min(column, width - column) / width
            distance = math.hypot(math.tan(math.pi * fy), math.tan(math.pi * fx)) / math.tan(math.pi * cutoff)
            if kind == "ideal":
                gain = float(distance <= 1 + 1e-9)
            elif kind == "gaussian":
                gain = math.exp(-(distance**2) / 2)
            else:
                gain = 1 / (1 + distance ** (2 * order))
            basis = np.exp(2j * np.pi * (row * y / height + column * x / width))
            result += (gain * np.vdot(basis, image) / image.size * basis).real
    return result


@KINDS
@SIZES
def test_a_cutoff_at_nyquist_is_the_identity(kind: str, size: tuple[int, int]) -> None:
    image = random_image(2, 3, *size)
    torch.testing.assert_close(low_pass(image, 0.5, kind), image, rtol=0, atol=1e-12)
    torch.testing.assert_close(low_pass(image.float(), 0.5, kind), image.float(), rtol=0, atol=1e-6)
    assert (transfer(*size, 0.5, kind) == 1).all()


@KINDS
def test_a_ramp_to_nyquist_arrives_without_a_jump(kind: str) -> None:
    """Odd sides: no frequency of the image is exactly 0.5, the only one that every lower cut-off removes."""
    image = random_image(3, 31, 33)
    changes = [(low_pass(image, cutoff, kind) - image).norm() / image.norm() for cutoff in (0.4, 0.45, 0.48, 0.499)]
    assert all(later <= earlier for earlier, later in pairwise(changes))
    assert changes[0] > 0.05
    assert changes[-1] < 0.01


@KINDS
@SIZES
@pytest.mark.parametrize("cutoff", [0.07, 0.25])
def test_parity_with_the_sum_over_all_frequencies(kind: str, size: tuple[int, int], cutoff: float) -> None:
    image = random_image(*size)
    expected = slow_low_pass(image.numpy(), cutoff, kind, order=3)
    np.testing.assert_allclose(low_pass(image, cutoff, kind, order=3).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("cycles", [(0, 3), (3, 0), (0, 8), (8, 0), (0, 15), (0, 16)])
def test_ideal_keeps_what_lies_below_the_cutoff_and_removes_what_lies_above(cycles: tuple[int, int]) -> None:
    image, frequency = wave(32, *cycles), max(cycles) / 32
    if frequency < 0.5:
        torch.testing.assert_close(low_pass(image, frequency + 1e-3, "ideal"), image, rtol=0, atol=1e-6)
    torch.testing.assert_close(low_pass(image, frequency, "ideal"), image, rtol=0, atol=1e-6)
    removed = low_pass(image, frequency - 1e-3, "ideal")
    torch.testing.assert_close(removed, torch.zeros_like(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cutoff", [0.1, 0.2, 0.3, 0.7 / 2])
def test_a_cutoff_that_is_a_frequency_of_the_image_passes_it(cutoff: float) -> None:
    gains = transfer(60, 60, cutoff, "ideal")
    edge = round(60 * cutoff)
    assert [float(gains[0, edge]), float(gains[0, edge + 1])] == [1, 0]
    assert [float(gains[edge, 0]), float(gains[edge + 1, 0]), float(gains[-edge, 0])] == [1, 0, 1]


@pytest.mark.parametrize(("cycles_y", "cycles_x"), [(0, 4), (4, 0), (0, 8), (3, 5), (-6, 2), (11, 13)])
@pytest.mark.parametrize("cutoff", [0.125, 0.25, 0.4])
def test_a_wave_is_scaled_by_the_formula_of_its_filter(cycles_y: int, cycles_x: int, cutoff: float) -> None:
    image = wave(32, cycles_y, cycles_x)
    squared = (math.tan(math.pi * cycles_y / 32) ** 2 + math.tan(math.pi * cycles_x / 32) ** 2) / math.tan(
        math.pi * cutoff
    ) ** 2
    expected = {("gaussian", 1): math.exp(-squared / 2), ("butterworth", 1): 1 / (1 + squared)}
    expected |= {("butterworth", order): 1 / (1 + squared**order) for order in (2, 4)}
    for (kind, order), gain in expected.items():
        torch.testing.assert_close(low_pass(image, cutoff, kind, order), gain * image, rtol=0, atol=1e-12)


@KINDS
def test_the_mean_alone_is_left_by_a_cutoff_whose_square_is_nothing(kind: str) -> None:
    gains = transfer(6, 7, 1e-200, kind)
    assert float(gains[0, 0]) == 1
    assert float(gains.sum()) == 1


def test_gains_at_the_cutoff_are_those_of_the_textbook() -> None:
    at_cutoff = {kind: float(transfer(64, 64, 0.25, kind, order=5)[0, 16]) for kind in FILTERS}
    assert at_cutoff == pytest.approx({"ideal": 1.0, "gaussian": math.exp(-0.5), "butterworth": 0.5})
    near_zero = float(transfer(1000, 1000, 0.1, "gaussian")[10, 0])
    assert near_zero == pytest.approx(math.exp(-0.5 * (0.01 / 0.1) ** 2), rel=2e-3)  # tan is linear there


@KINDS
def test_low_and_high_pass_together_are_the_image(kind: str) -> None:
    image = random_image(2, 3, 20, 23)
    low, high = low_pass(image, 0.2, kind), high_pass(image, 0.2, kind)
    torch.testing.assert_close(low + high, image, rtol=0, atol=1e-14)
    torch.testing.assert_close(high.mean((-2, -1)), torch.zeros(2, 3).double(), rtol=0, atol=1e-14)
    assert high.norm() > 0.1 * image.norm()


@KINDS
@SIZES
def test_energy_of_the_result_is_that_of_the_weighted_spectrum(kind: str, size: tuple[int, int]) -> None:
    """Parseval: columns of the half-plane count twice, but for the first and, of an even width, the last."""
    image, (height, width) = random_image(*size), size
    columns = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    columns[0] = 1
    if width % 2 == 0:
        columns[-1] = 1
    power = (torch.fft.rfft2(image) * transfer(*size, 0.21, kind)).abs() ** 2
    energy = float((columns * power).sum()) / (height * width)
    assert float((low_pass(image, 0.21, kind) ** 2).sum()) == pytest.approx(energy, rel=1e-12)


@KINDS
@SIZES
def test_linear_mean_preserving_and_equivariant_to_shifts(kind: str, size: tuple[int, int]) -> None:
    first, second = random_image(3, *size), random_image(3, *size, seed=1)
    filtered = low_pass(first, 0.15, kind)
    combined = low_pass(2 * first - 0.7 * second, 0.15, kind)
    torch.testing.assert_close(combined, 2 * filtered - 0.7 * low_pass(second, 0.15, kind), rtol=0, atol=1e-12)
    torch.testing.assert_close(filtered.mean((-2, -1)), first.mean((-2, -1)), rtol=0, atol=1e-12)
    moved = low_pass(first.roll((3, -2), (-2, -1)), 0.15, kind)
    torch.testing.assert_close(moved, filtered.roll((3, -2), (-2, -1)), rtol=0, atol=1e-12)


def test_ideal_twice_is_ideal_once() -> None:
    once = low_pass(random_image(24, 25), 0.2, "ideal")
    torch.testing.assert_close(low_pass(once, 0.2, "ideal"), once, rtol=0, atol=1e-13)


@KINDS
def test_gradients(kind: str) -> None:
    image = random_image(2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: low_pass(x, 0.2, kind), (image,))
    assert torch.autograd.gradgradcheck(lambda x: low_pass(x, 0.2, kind), (image,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_stays_and_half_is_filtered_in_float(dtype: torch.dtype) -> None:
    image = random_image(3, 12, 14).to(dtype)
    result = low_pass(image, 0.2)
    assert result.dtype == dtype
    torch.testing.assert_close(result, low_pass(image.double(), 0.2).to(dtype))


@pytest.mark.parametrize("cutoff", [0.0, -0.1, 0.500001, 2.0, math.nan])
def test_a_cutoff_out_of_range_is_an_error(cutoff: float) -> None:
    with pytest.raises(ValueError, match=r"above 0 and at most 0\.5"):
        low_pass(random_image(4, 4), cutoff)


def test_wrong_settings_are_errors_that_name_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="ideal, gaussian, butterworth"):
        check_low_pass(0.2, "box")
    with pytest.raises(ValueError, match="at least 1"):
        transfer(4, 4, 0.2, "butterworth", order=0)
    with pytest.raises(ValueError, match="floating point"):
        low_pass(torch.zeros(4, 4, dtype=torch.uint8), 0.2)


@KINDS
@pytest.mark.parametrize("shape", [(20, 27, 3), (21, 16)])
def test_a_picture_is_filtered_per_channel_rounded_and_clamped(kind: str, shape: tuple[int, ...]) -> None:
    pixels = RNG(0).choice([0, 255], size=shape).astype(np.uint8)  # rings beyond both ends
    channels = torch.from_numpy(pixels).double()
    last = low_pass(channels.movedim(-1, 0) if channels.ndim == 3 else channels, 0.3, kind)
    expected = (last.movedim(0, -1) if channels.ndim == 3 else last).round().clamp(0, 255).numpy()
    found = np.asarray(low_pass_image(Image.fromarray(pixels), 0.3, kind))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1  # float32 may round a half the other way
    assert (found != expected).mean() < 0.002
    same = low_pass_image(Image.fromarray(pixels), 0.5, kind)
    np.testing.assert_array_equal(np.asarray(same), pixels)


def test_a_picture_with_transparency_is_refused() -> None:
    with pytest.raises(ValueError, match="'RGBA'"):
        low_pass_image(Image.new("RGBA", (8, 8)), 0.2)
