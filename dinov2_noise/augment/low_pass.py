"""Low-pass filters of images in the frequency domain: ideal, Gaussian and Butterworth.

The gains are those of R. C. Gonzalez and R. E. Woods, "Digital Image Processing", chapter on filtering in the frequency
domain, with one departure. There the gain depends on the plain radius sqrt(fx^2 + fy^2), so that a cut-off at the
highest frequency an image holds, 0.5 cycles per pixel (Nyquist), still dampens fine detail and cuts the corners of the
spectrum. Here every frequency is first warped as in the bilinear transform of digital filters,

    w = tan(pi f),    radius^2 = tan(pi fx)^2 + tan(pi fy)^2,    relative = radius / tan(pi cutoff),

which is nearly linear below 0.2 and reaches infinity at 0.5. A cut-off of 0.5 is therefore the identity for each kind,
a ramp of the cut-off to 0.5 arrives there smoothly, and along the two axes the cut-off stays where it was asked for.
One frequency is the exception to the ramp: 0.5 itself, which sides of even length hold, one row and one column of the
spectrum, and which every lower cut-off removes.

Like every filter by FFT it takes the image as periodic: what leaves on one side enters on the other. Frequencies are in
cycles per pixel, 0 … 0.5.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dinov2_noise.augment.pixels import pixels_uint8, rounded_uint8

FILTERS = ("ideal", "gaussian", "butterworth")
NYQUIST_CYCLES_PER_PX = 0.5
# Of squared radii: a cut-off that is a frequency of the image stays in the pass band, however it was rounded.
ROUNDING = 1e-9


def transfer(height: int, width: int, cutoff_cycles_per_px: float, kind: str = "gaussian", order: int = 2) -> Tensor:
    """Gains of the low-pass for the spectrum that ``torch.fft.rfft2`` makes of an image (..., height, width).

    With d the relative radius of the module's docstring: ``ideal`` is 1 where d <= 1 and 0 elsewhere, ``gaussian`` is
    exp(-d^2 / 2) (0.61 at the cut-off), ``butterworth`` is 1 / (1 + d^(2 order)) (0.5 at the cut-off). The mean always
    has gain 1.

    Args:
        height, width: of the image, in pixels.
        cutoff_cycles_per_px: above 0, at most 0.5; at 0.5 all gains are 1.
        kind: one of ``FILTERS``.
        order: steepness of the Butterworth filter, at least 1; the other kinds have none.

    Returns:
        (height, width // 2 + 1) float64, between 0 and 1.

    Raises:
        ValueError: cut-off, kind or order out of range.
    """
    check_low_pass(cutoff_cycles_per_px, kind, order)
    shape = (height, width // 2 + 1)
    if cutoff_cycles_per_px == NYQUIST_CYCLES_PER_PX:
        return torch.ones(shape, dtype=torch.float64)
    rows = torch.arange(height, dtype=torch.float64)
    vertical = _warped(torch.minimum(rows, height - rows) / height)
    horizontal = _warped(torch.arange(shape[1], dtype=torch.float64) / width)
    cutoff = _warped(torch.tensor(cutoff_cycles_per_px, dtype=torch.float64))
    # Divided before they are squared: the square of a tiny cut-off is 0, and the gain of the mean would be 0 / 0.
    squared = (vertical[:, None] / cutoff) ** 2 + (horizontal / cutoff) ** 2
    if kind == "ideal":
        return (squared <= 1 + ROUNDING).double()
    if kind == "gaussian":
        return torch.exp(-squared / 2)
    return 1 / (1 + squared**order)


def low_pass(image: Tensor, cutoff_cycles_per_px: float, kind: str = "gaussian", order: int = 2) -> Tensor:
    """The image without its high frequencies: irfft2(transfer * rfft2(image)).

    Linear and differentiable; values may leave the range of the input (ringing, above all of ``ideal``).

    Args:
        image: (..., H, W), floating point; half precisions are filtered in float32.
        cutoff_cycles_per_px, kind, order: see `transfer`.

    Returns:
        (..., H, W), of the same dtype and on the same device.

    Raises:
        ValueError: ``image`` is not floating point, or see `transfer`.
    """
    if not image.is_floating_point():
        raise ValueError(f"low-pass of a {image.dtype} tensor: convert it to floating point first")
    height, width = image.shape[-2:]
    gains = transfer(height, width, cutoff_cycles_per_px, kind, order)
    working = image if image.dtype in (torch.float32, torch.float64) else image.float()
    spectrum = torch.fft.rfft2(working) * gains.to(device=image.device, dtype=working.dtype)
    filtered: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return filtered.to(image.dtype)


def high_pass(image: Tensor, cutoff_cycles_per_px: float, kind: str = "gaussian", order: int = 2) -> Tensor:
    """What `low_pass` takes away: image - low_pass(image), with mean 0. Arguments and errors as there."""
    return image - low_pass(image, cutoff_cycles_per_px, kind, order)


def low_pass_image(
    image: Image.Image, cutoff_cycles_per_px: float, kind: str = "gaussian", order: int = 2
) -> Image.Image:
    """`low_pass` of each channel of an 8-bit picture, RGB or grey, rounded and clamped to 0 … 255.

    Raises:
        ValueError: a picture of another mode, or see `transfer`.
    """
    values = torch.from_numpy(pixels_uint8(image)).float()
    channels = values if values.ndim == 2 else values.permute(2, 0, 1)
    filtered = low_pass(channels, cutoff_cycles_per_px, kind, order)
    last = filtered if values.ndim == 2 else filtered.permute(1, 2, 0)
    return Image.fromarray(rounded_uint8(np.ascontiguousarray(last.numpy())))


def check_low_pass(cutoff_cycles_per_px: float, kind: str = "gaussian", order: int = 2) -> None:
    """Refuse settings that no filter has.

    Raises:
        ValueError: the cut-off is not in (0, 0.5], ``kind`` is not in ``FILTERS``, or ``order`` is below 1.
    """
    if not 0 < cutoff_cycles_per_px <= NYQUIST_CYCLES_PER_PX:
        raise ValueError(
            f"cut-off of {cutoff_cycles_per_px} cycles per pixel: it must be above 0 and at most 0.5 (no filter)"
        )
    if kind not in FILTERS:
        raise ValueError(f"unknown low-pass filter {kind!r}: valid are {', '.join(FILTERS)}")
    if order < 1:
        raise ValueError(f"order {order} of a low-pass filter: it must be at least 1")


def _warped(frequency: Tensor) -> Tensor:
    """tan(pi f) of cycles per pixel: at 0.5 a huge but finite number."""
    return torch.tan(torch.pi * frequency)
