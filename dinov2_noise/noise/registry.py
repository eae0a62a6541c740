"""All noise models by name: ``gauss255``, ``poissongauss30_5``, and ranges of levels, ``gauss5-50``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dinov2_noise.errors import NoiseNameError
from dinov2_noise.noise.correlated import Correlated
from dinov2_noise.noise.models import FloatImage, Gaussian, NoiseModel, PixelNoise, Shot, Speckle
from dinov2_noise.noise.physics import Gamma, Rician, SaltPepper, Sensor


@dataclass(frozen=True)
class Family:
    """Noise models that differ in their levels alone.

    Attributes:
        model: from the levels to the model.
        parameters: (symbol, what it is, with its unit) of each level, in the order of the name.
        formula: before clipping, x in [0, 1].
        stands_for: where such noise comes from.
        examples: names, from mild to strong; of the published families those of the experiments.
        source: authors, year, journal or arXiv id.
        is_published: whether the published experiments use it.
    """

    model: Callable[..., PixelNoise]
    parameters: tuple[tuple[str, str], ...]
    formula: str
    stands_for: str
    examples: tuple[str, ...]
    source: str
    is_published: bool = False

    def __call__(self, *levels: float) -> PixelNoise:
        """The model with these levels."""
        return self.model(*levels)

    def signature(self, name: str) -> str:
        """As the name is to be written: ``correlated<s>_<r>``."""
        return name + "_".join(f"<{symbol}>" for symbol, _ in self.parameters)


_SIGMA = ("s", "standard deviation on the 8-bit scale")
_PAPER = "Ditch the Denoiser, 2025, arXiv 2505.12191"
FAMILIES: dict[str, Family] = {
    "gauss": Family(
        Gaussian,
        (_SIGMA,),
        "x + N(0, (s/255)²)",
        "read-out and amplifier noise",
        ("gauss50", "gauss100", "gauss255"),
        _PAPER,
        is_published=True,
    ),
    "shot": Family(
        Shot,
        (("l", "photons at full intensity"),),
        "Poisson(x·l) / l",
        "photon counting",
        ("shot10", "shot3", "shot1"),
        _PAPER,
        is_published=True,
    ),
    "speckle": Family(
        Speckle,
        (("c", "standard deviation relative to the signal"),),
        "x + x·N(0, c²)",
        "multiplicative noise, Gaussian",
        ("speckle0.4", "speckle0.7", "speckle1.0"),
        _PAPER,
        is_published=True,
    ),
    "poissongauss": Family(
        Sensor,
        (("l", "photons at full intensity (1/gain)"), ("s", "read noise: standard deviation on the 8-bit scale")),
        "Poisson(x·l) / l + N(0, (s/255)²)",
        "camera, microscope or telescope: photons and read-out",
        ("poissongauss100_5", "poissongauss30_10", "poissongauss10_20"),
        "Foi et al., 2008, IEEE Trans. Image Processing 17",
    ),
    "rician": Family(
        Rician,
        (("s", "standard deviation of each part on the 8-bit scale"),),
        "|x + N(0, (s/255)²) + i·N(0, (s/255)²)|",
        "magnitude images of MRI",
        ("rician10", "rician25", "rician50"),
        "Gudbjartsson and Patz, 1995, Magnetic Resonance in Medicine 34",
    ),
    "saltpepper": Family(
        SaltPepper,
        (("p", "share of lost values, half of them black, half white"),),
        "0 or 1 with chance p/2 each, else x",
        "dead and hot pixels, transmission errors",
        ("saltpepper0.05", "saltpepper0.2", "saltpepper0.5"),
        "Chan, Ho and Nikolova, 2005, IEEE Trans. Image Processing 14",
    ),
    "gamma": Family(
        Gamma,
        (("L", "looks: independent images averaged"),),
        "x·Gamma(L, 1/L)",
        "speckle of radar, ultrasound, laser light",
        ("gamma16", "gamma4", "gamma1"),
        "Goodman, 1976, J. Optical Society of America 66",
    ),
    "correlated": Family(
        Correlated,
        (_SIGMA, ("r", "standard deviation of the Gaussian blur in px")),
        "x + blur_r(N(0, 1)), scaled to s/255",
        "noise that was resized, demosaiced or drizzled",
        ("correlated25_1", "correlated50_1", "correlated50_3"),
        "Fruchter and Hook, 2002, PASP 114, arXiv astro-ph/9808087",
    ),
}


@dataclass(frozen=True)
class LevelRange:
    """Noise of one family whose first level is drawn for each image, uniformly: ``gauss5-50``, ``poissongauss10-99_5``.

    The level comes from a stream of its own of the image's seed. So the pixels of an image for which 20 is drawn are
    those of ``gauss20``, and the level can be found again: see `seeding.noise_of`.

    Attributes:
        family: a key of `FAMILIES`.
        low, high: of the first level; low <= high.
        rest: the other levels, the same for all images.
    """

    family: str
    low: float
    high: float
    rest: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        ends = [FAMILIES[self.family](level, *self.rest) for level in (self.low, self.high)]
        if self.low > self.high:
            raise NoiseNameError(
                f"noise {self.name}: the range begins above its end; write {self.family}"
                f"{_levels(self.family, ends[1]).split('_')[0]}-{_levels(self.family, ends[0])}"
            )

    @property
    def name(self) -> str:
        low, high = (FAMILIES[self.family](level, *self.rest) for level in (self.low, self.high))
        return f"{self.family}{_levels(self.family, low).split('_')[0]}-{_levels(self.family, high)}"

    def drawn(self, rng: np.random.Generator) -> PixelNoise:
        """The model of one image. ``rng``: fresh from the image's seed; the numbers it gives later stay the same."""
        (own,) = rng.spawn(1)
        return FAMILIES[self.family](float(own.uniform(self.low, self.high)), *self.rest)

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        return self.drawn(rng).sample(image, rng)


_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_NAME = re.compile(rf"(?P<family>[a-z]+)(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?(?P<rest>(?:_{_NUMBER})*)")


def parse(name: str) -> PixelNoise | LevelRange:
    """The noise model called ``name``, such as ``gauss255``, ``poissongauss30_5`` or ``gauss5-50``.

    Raises:
        NoiseNameError: the family is unknown, or a level is missing, not a number, or out of range.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["family"] not in FAMILIES:
        raise NoiseNameError(f"unknown noise {name!r}: {valid_names()}")
    family = FAMILIES[match["family"]]
    rest = tuple(float(level) for level in match["rest"].split("_")[1:])
    if 1 + len(rest) != len(family.parameters):
        raise NoiseNameError(
            f"noise {name!r} has {_count(1 + len(rest))}, but {match['family']} takes "
            f"{_count(len(family.parameters))}: {family.signature(match['family'])}, such as {family.examples[0]}"
        )
    low = float(match["low"])
    return family(low, *rest) if match["high"] is None else LevelRange(match["family"], low, float(match["high"]), rest)


def parse_pixel_noise(name: str) -> PixelNoise:
    """`parse`, for what needs to know how the values of a pixel are distributed.

    Raises:
        NoiseNameError: as for `parse`, or the noise is a range of levels.
    """
    noise = parse(name)
    if isinstance(noise, LevelRange):
        raise NoiseNameError(
            f"noise {name!r} has another level in each image, so that one true value has no one mean: give a single "
            f"level, such as {FAMILIES[noise.family](noise.low, *noise.rest).name}, and images made with that"
        )
    return noise


def valid_names() -> str:
    """One line for error messages."""
    written = {name: family.signature(name) for name, family in FAMILIES.items()}
    published = [
        f"{written[name]} ({', '.join(family.examples)})" for name, family in FAMILIES.items() if family.is_published
    ]
    others = [written[name] for name, family in FAMILIES.items() if not family.is_published]
    return (
        f"valid are the published {', '.join(published)}; {', '.join(others)}; and ranges such as gauss5-50. "
        "`dinov2-noise add-noise --list` explains them"
    )


def _levels(family: str, model: NoiseModel) -> str:
    return model.name.removeprefix(family)


def _count(number: int) -> str:
    return "one number" if number == 1 else f"{number} numbers"
