"""From the values a file stores to [0, 1]: which range of them is black to white."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import ConfigError

RANGE_FORMS = "dtype, fixed:A,B, percentile:P,Q, asinh, asinh:SOFTENING, asinh:SOFTENING,P,Q, window"
ADVICE = "choose --range fixed:A,B, percentile:P,Q or asinh (in a dataset string range=fixed,A,B and so on)"
# A star field's faint end is its background, hence almost all pixels: only its very brightest may saturate.
_ASINH_DEFAULTS = (0.1, 0.5, 99.9)


@dataclass(frozen=True)
class ValueRange:
    """Which stored values v become black (0) and white (1). What lies outside is clipped, NaN (no data) is black.

    ==================  ================================================================================
    ``dtype``           the stored type's own range: v / 255 for 8 bit, v / 65535 for 16 bit, floats as they are (they
                        must lie in [0, 1]), DICOM files by their bits stored. Other integers have no such range
    ``fixed``           x = (v - a) / (b - a), the same for all images
    ``percentile``      the same with a, b = the p-th and q-th percentile of the image's finite values (all channels)
    ``asinh``           x as for ``percentile``, then asinh(x / s) / asinh(1 / s): linear below the softening s,
                        logarithmic above
    ``window``          a DICOM file's own window: the first it names (PS3.3, C.11.2)
    ==================  ================================================================================

    Where an image's two percentiles are equal, what is above them is white and all else black.

    The asinh stretch is that of R. Lupton et al., Preparing Red-Green-Blue Images from CCD Data, 2004 (PASP 116, 133),
    in the parametrisation of astropy's ``AsinhStretch``, whose softening of 0.1 is also the default here. Lupton et al.
    scale the three channels of a pixel by one factor, to keep its colour; here each channel is stretched by itself.

    Attributes:
        kind: one of the names above.
        numbers: (a, b) of ``fixed``, (p, q) in percent of ``percentile``, (s, p, q) of ``asinh``, else empty.

    Raises:
        ConfigError: unknown kind, or numbers that make no range.
    """

    kind: str = "dtype"
    numbers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check = _CHECKS.get(self.kind)
        if check is None:
            raise ConfigError(f"unknown range {self.kind!r}: valid are {RANGE_FORMS}")
        complaint = "a number is not finite" if not all(map(math.isfinite, self.numbers)) else check(*self.numbers)
        if complaint:
            raise ConfigError(f"range {self.name}: {complaint}")

    @property
    def name(self) -> str:
        """As it is written in commands and manifests: ``parse_range(range.name) == range``."""
        return self.kind + (":" if self.numbers else "") + ",".join(map(_written, self.numbers))

    def parameter(self) -> dict[str, str]:
        """``{"range": name}`` for a manifest; nothing for ``dtype``, so that folders of older versions stay valid."""
        return {} if self == DTYPE_RANGE else {"range": self.name}

    @property
    def token(self) -> str:
        """As it is written in dataset strings, whose values cannot hold ``:``; `parse_range` takes it as well."""
        return self.name.replace(":", ",")


def _ends(low: float, high: float) -> str:
    return "" if low < high else "the first number, black, must be less than the second, white"


def _percentiles(low: float, high: float) -> str:
    return "" if 0 <= low < high <= 100 else "percentiles are 0 <= P < Q <= 100"


def _softened(softening: float, low: float, high: float) -> str:
    return _percentiles(low, high) if softening > 0 else "the softening must be greater than 0"


def _nothing() -> str:
    return ""


_CHECKS: dict[str, Callable[..., str]] = {
    "dtype": _nothing,
    "fixed": _ends,
    "percentile": _percentiles,
    "asinh": _softened,
    "window": _nothing,
}
_LENGTHS = {"dtype": (0,), "fixed": (2,), "percentile": (2,), "asinh": (0, 1, 3), "window": (0,)}

DTYPE_RANGE = ValueRange()
_ROWS = 256


def parse_range(text: str) -> ValueRange:
    """The range called ``text``: ``fixed:0,4095``, or ``fixed,0,4095`` as in dataset strings.

    Raises:
        ConfigError: there is no such range, or its numbers make none.
    """
    kind, *numbers = text.replace(":", ",", 1).split(",")
    try:
        given = tuple(float(number) for number in numbers)
    except ValueError as cause:
        raise ConfigError(f"unknown range {text!r}: valid are {RANGE_FORMS}") from cause
    if len(given) not in _LENGTHS.get(kind, ()):
        raise ConfigError(f"unknown range {text!r}: valid are {RANGE_FORMS}")
    return ValueRange(kind, given + _ASINH_DEFAULTS[len(given) :] if kind == "asinh" else given)


def _written(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


Window = Callable[[NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class Stored:
    """What a file holds, before any range.

    Attributes:
        values: (H, W, 1) gray or (H, W, 3) RGB numbers in native byte order; NaN where there are no data.
        ends: black and white of the stored type; None where the type has no range that a picture would use.
        is_inverted: large values are dark.
        window: a DICOM file's own window: ``values`` → [0, 1] (the window of an inverted image too is inverted later).
    """

    values: NDArray[Any]
    ends: tuple[float, float] | None
    is_inverted: bool = False
    window: Window | None = None

    @property
    def has_8_bits(self) -> bool:
        return self.values.dtype == np.uint8 and self.ends == (0, 255)


def type_ends(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Black and white of a number type: (0, 255), (0, 65535), (0, 1) for floats and booleans, else None."""
    if dtype.kind in "fb":
        return (0, 1)
    return (0, float(np.iinfo(dtype).max)) if dtype in (np.uint8, np.uint16) else None


def scaled(stored: Stored, values: ValueRange) -> NDArray[np.float64]:
    """(H, W, 3) in [0, 1]; of gray images a view in which the three channels are one, not to be written to.

    Raises:
        ValueError: the image has no finite value, or ``values`` does not fit it; the text says what would.
    """
    plain = stored.values.astype(np.float64)
    missing = np.isnan(plain)
    if missing.all():
        raise ValueError("it has no pixel that is a number: all are NaN")
    result = _KINDS[values.kind](stored, plain, missing, values.numbers)
    if stored.is_inverted:
        np.subtract(1, result, out=result)
    result[missing] = 0
    np.clip(result, 0, 1, out=result)
    return np.broadcast_to(result, (*result.shape[:2], 3))


Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def _dtype(stored: Stored, plain: Floats, missing: Mask, numbers: tuple[float, ...]) -> Floats:
    if stored.ends is None:
        raise ValueError(f"its numbers are {stored.values.dtype}, a type without a black and a white: {ADVICE}")
    if stored.values.dtype.kind == "f" and stored.ends == (0, 1):
        low, high = float(np.nanmin(plain)), float(np.nanmax(plain))
        if low < 0 or high > 1:
            raise ValueError(f"its floats reach from {low:g} to {high:g}, beyond [0, 1]: {ADVICE}")
    return _stretched(plain, *stored.ends)


def _fixed(stored: Stored, plain: Floats, missing: Mask, numbers: tuple[float, ...]) -> Floats:
    return _stretched(plain, *numbers)


def _percentile(stored: Stored, plain: Floats, missing: Mask, numbers: tuple[float, ...]) -> Floats:
    finite = plain[np.isfinite(plain)]
    if not finite.size:
        raise ValueError("it has no pixel that is a finite number")
    low, high = np.percentile(finite, numbers)
    return _stretched(plain, float(low), float(high))


def _asinh(stored: Stored, plain: Floats, missing: Mask, numbers: tuple[float, ...]) -> Floats:
    softening, *percentiles = numbers
    linear = np.clip(_percentile(stored, plain, missing, tuple(percentiles)), 0, 1)
    return np.arcsinh(linear / softening) / math.asinh(1 / softening)


def _window(stored: Stored, plain: Floats, missing: Mask, numbers: tuple[float, ...]) -> Floats:
    if stored.window is None:
        raise ValueError(f"it has no window of its own, as some DICOM files have: {ADVICE}")
    return stored.window(plain)


def _stretched(plain: Floats, low: float, high: float) -> Floats:
    """``low`` → 0 and ``high`` → 1; the limit of a narrow range, a step, where they are equal."""
    if low == high:
        return (plain > low).astype(np.float64)
    return (plain - low) / (high - low)


_KINDS: dict[str, Callable[[Stored, Floats, Mask, tuple[float, ...]], Floats]] = {
    "dtype": _dtype,
    "fixed": _fixed,
    "percentile": _percentile,
    "asinh": _asinh,
    "window": _window,
}


def to_float32(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """0 to 255 of uint8, or [0, 1], → [0, 1]; float32 tells any two of 2^24 values apart."""
    if pixels.dtype == np.uint8:
        pixels = np.divide(pixels, np.float32(255), dtype=np.float32)
    result: NDArray[np.float32] = pixels.astype(np.float32, copy=False)
    return result


def to_uint8(pixels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[0, 1] → 0 to 255, rounded; gray, as `scaled` gives it, is rounded once."""
    if pixels.ndim == 3 and pixels.shape[2] > 1 and pixels.strides[2] == 0:
        return np.repeat(to_uint8(pixels[..., :1]), pixels.shape[2], axis=2)
    rounded = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _ROWS):  # a large frame's floats once more would be gigabytes
        rounded[top : top + _ROWS] = np.rint(pixels[top : top + _ROWS] * 255)
    return rounded
