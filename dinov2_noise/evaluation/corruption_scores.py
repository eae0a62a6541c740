"""Scores of ImageNet-C from the error of every cell (corruption, severity): mCE, relative mCE and unnormalised means.

With E the top-1 error of the model and A that of AlexNet, both of corruption c at severity s, and E0, A0 on clean
images::

    CE(c)          = sum_s E(c, s) / sum_s A(c, s)                   mCE          = 100 · mean over the 15 of CE
    relative CE(c) = sum_s (E(c, s) - E0) / sum_s (A(c, s) - A0)     relative mCE = 100 · mean over the 15 of it

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
2019, arXiv 1903.12261, section 4; AlexNet's errors are those published with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

ALEXNET_ERROR: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)
"""Top-1 error of AlexNet on ImageNet-C (1,000 classes), mean over the five severities."""
ALEXNET_CLEAN_ERROR = 0.435
"""On the clean ImageNet-1k validation images, as the paper's table gives it."""
N_SEVERITIES = 5

Errors = Mapping[tuple[str, int], float]
"""Error in [0, 1] by (corruption, severity)."""


@dataclass(frozen=True)
class Scores:
    """What the cells amount to; None where cells that a score needs are not there.

    Attributes:
        clean_error: on clean images, in [0, 1].
        mce, relative_mce: in per cent; AlexNet on ImageNet-1k has 100.
        mean_error: unnormalised, over the 75 cells of the 15 corruptions, in [0, 1].
        error_of: corruption → mean error over its severities, also of corruptions beyond the 15.
        ce_of, relative_ce_of: corruption → CE and relative CE in per cent.
        error_at: severity → mean error over the 15.
    """

    clean_error: float | None
    mce: float | None
    relative_mce: float | None
    mean_error: float | None
    error_of: Mapping[str, float]
    ce_of: Mapping[str, float]
    relative_ce_of: Mapping[str, float]
    error_at: Mapping[int, float]


def score(errors: Errors, clean_error: float | None) -> Scores:
    """The scores of a model.

    Args:
        errors: of each cell that was measured, in [0, 1].
        clean_error: on the same images without corruption; None leaves relative scores out.

    Raises:
        ValueError: an error lies outside of [0, 1], or a severity is not one of 1 to 5.
    """
    _check(errors, clean_error)
    error_of = {
        name: _mean([errors[name, severity] for severity in _severities()])
        for name in dict.fromkeys(name for name, _ in errors)
        if all((name, severity) in errors for severity in _severities())
    }
    ce_of = {name: 100 * error_of[name] / alexnet for name, alexnet in ALEXNET_ERROR.items() if name in error_of}
    relative = {} if clean_error is None else {name: _relative(name, error_of[name], clean_error) for name in ce_of}
    complete = set(ce_of) == set(ALEXNET_ERROR)
    return Scores(
        clean_error=clean_error,
        mce=_mean(list(ce_of.values())) if complete else None,
        relative_mce=_mean(list(relative.values())) if complete and relative else None,
        mean_error=_mean([error_of[name] for name in ALEXNET_ERROR]) if complete else None,
        error_of=error_of,
        ce_of=ce_of,
        relative_ce_of=relative,
        error_at={
            severity: _mean([errors[name, severity] for name in ALEXNET_ERROR])
            for severity in _severities()
            if all((name, severity) in errors for name in ALEXNET_ERROR)
        },
    )


def _relative(name: str, error: float, clean_error: float) -> float:
    return 100 * (error - clean_error) / (ALEXNET_ERROR[name] - ALEXNET_CLEAN_ERROR)


def _severities() -> range:
    return range(1, N_SEVERITIES + 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check(errors: Errors, clean_error: float | None) -> None:
    for (name, severity), error in errors.items():
        if severity not in _severities():
            raise ValueError(f"severity {severity} of {name} is not one of 1 to {N_SEVERITIES}")
        if not 0 <= error <= 1:
            raise ValueError(f"error {error} of {name}/{severity} is not in [0, 1]")
    if clean_error is not None and not 0 <= clean_error <= 1:
        raise ValueError(f"clean error {clean_error} is not in [0, 1]")
