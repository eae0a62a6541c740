"""The corruptions by name and severity: ``fog/3``, and how strong each may be asked for.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (2019, arXiv
1903.12261): 15 corruptions that make up the benchmark ImageNet-C, and 4 more that methods may be tuned on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import numpy as np

from dinov2_noise.errors import NoiseNameError
from dinov2_noise.noise.models import FloatImage

Function = Callable[[FloatImage, int, np.random.Generator], FloatImage]


class _Kind(NamedTuple):
    module: str
    """Of this package; its function has the corruption's name."""
    min_side_px: int


# Least sides: where the definition reads no pixel (a kernel's border, a magnified crop, a box) there is no result.
_STANDARD = {
    "gaussian_noise": _Kind("noises", 1),
    "shot_noise": _Kind("noises", 1),
    "impulse_noise": _Kind("noises", 1),
    "defocus_blur": _Kind("blurs", 16),
    "glass_blur": _Kind("blurs", 16),
    "motion_blur": _Kind("blurs", 1),
    "zoom_blur": _Kind("blurs", 16),
    "snow": _Kind("weather", 16),
    "frost": _Kind("weather", 1),
    "fog": _Kind("weather", 2),
    "brightness": _Kind("digital", 1),
    "contrast": _Kind("digital", 1),
    "elastic_transform": _Kind("digital", 16),
    "pixelate": _Kind("digital", 4),
    "jpeg_compression": _Kind("digital", 1),
}
_EXTRA = {
    "speckle_noise": _Kind("noises", 1),
    "gaussian_blur": _Kind("blurs", 1),
    "spatter": _Kind("spatter", 4),
    "saturate": _Kind("digital", 1),
}
_KINDS = _STANDARD | _EXTRA

CORRUPTIONS = tuple(_STANDARD)
EXTRA_CORRUPTIONS = tuple(_EXTRA)
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One cell of the benchmark; hashable, picklable, without random state.

    Attributes:
        name: one of :data:`CORRUPTIONS` or :data:`EXTRA_CORRUPTIONS`.
        severity: 1 (mild) to 5.

    Raises:
        NoiseNameError: unknown name or severity.
    """

    name: str
    severity: int

    def __post_init__(self) -> None:
        if self.name not in _KINDS:
            raise NoiseNameError(f"unknown corruption {self.name!r}: {_valid_names()}")
        if type(self.severity) is not int or self.severity not in SEVERITIES:
            raise NoiseNameError(f"severity {self.severity!r} of {self.name}: valid are 1, 2, 3, 4, 5")

    @property
    def label(self) -> str:
        """``fog/3``: name in dataset strings and records, and folder; ``parse_corruption(label)`` is the inverse."""
        return f"{self.name}/{self.severity}"

    @property
    def min_side_px(self) -> int:
        """The least height and width that it is defined for."""
        return _KINDS[self.name].min_side_px

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """One corrupted realisation of ``image`` (H, W, 3) in [0, 1], float64, clipped to [0, 1].

        Raises:
            ValueError: the image has another shape, or a side below :attr:`min_side_px`.
        """
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must be (H, W, 3), not {image.shape}")
        complaint = self.size_complaint(*image.shape[:2])
        if complaint is not None:
            raise ValueError(complaint)
        return np.clip(_function(self.name)(image, self.severity, rng), 0.0, 1.0)

    def size_complaint(self, height: int, width: int) -> str | None:
        """Why an image of this size cannot be corrupted so, or None."""
        if min(height, width) >= self.min_side_px:
            return None
        return f"it is {width}x{height} px, and {self.label} needs sides of at least {self.min_side_px} px"


def parse_corruption(label: str) -> Corruption:
    """The corruption called ``label``, such as ``fog/3``.

    Raises:
        NoiseNameError: unknown name or severity; the message lists the valid ones.
    """
    name, slash, severity = label.partition("/")
    if name in _KINDS and severity not in {str(level) for level in SEVERITIES}:
        given = f"severity {severity!r} of {name}" if slash else f"severity missing in {label!r}"
        raise NoiseNameError(f"{given}: write {name}/1 to {name}/5")
    return Corruption(name, int(severity) if severity.isascii() and severity.isdigit() else 1)


def parse_names(text: str) -> tuple[str, ...]:
    """Names of corruptions from ``all`` (19), ``standard`` (15), ``extra`` (4), or a list such as ``fog,snow``.

    Raises:
        NoiseNameError: a name is unknown.
    """
    groups = {"all": CORRUPTIONS + EXTRA_CORRUPTIONS, "standard": CORRUPTIONS, "extra": EXTRA_CORRUPTIONS}
    names = groups.get(text, _listed(text))
    for name in names:
        if name not in _KINDS:
            raise NoiseNameError(
                f"unknown corruption {name!r} in {text!r}: write all, standard, extra, or names separated by commas; "
                f"{_valid_names()}"
            )
    return names


def parse_severities(text: str) -> tuple[int, ...]:
    """Severities from a list such as ``1,3,5``.

    Raises:
        NoiseNameError: one is not in 1 … 5.
    """
    parts = _listed(text)
    wrong = [part for part in parts if part not in {str(level) for level in SEVERITIES}]
    if wrong:
        raise NoiseNameError(f"severity {wrong[0]!r} in {text!r}: valid are 1, 2, 3, 4, 5, separated by commas")
    return tuple(int(part) for part in parts)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _function(name: str) -> Function:
    # Imported at the first use: SciPy takes a third of a second, and every command and loader worker reads dataset
    # strings, hence imports this module.
    module = import_module(f"dinov2_noise.noise.corruptions.{_KINDS[name].module}")
    function: Function = getattr(module, name)
    return function


def _valid_names() -> str:
    return f"valid are {', '.join(CORRUPTIONS)}, and beyond the benchmark {', '.join(EXTRA_CORRUPTIONS)}"
