"""Denoisers of other libraries, each with one setting that is tuned fairly; used by denoise_quality.py.

scikit-image's non-local means (Buades, Coll, Morel, "A Non-Local Algorithm for Image Denoising", CVPR 2005) and total
variation (Chambolle, "An Algorithm for Total Variation Minimization and Applications", JMIV 2004), and BM3D (Dabov,
Foi, Katkovnik, Egiazarian, "Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering", TIP 2007) where
the package `bm3d` is installed (its licence allows non-commercial use only, so it is no extra of ours).

Each is told the noise level, the root mean square of noisy minus clean, and multiplies it by the factor that gives the
best mean PSNR on clean and noisy training photographs. Both are more than Neighbor2Neighbor is given.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

Image8 = NDArray[np.uint8]
FloatImage = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LibraryDenoiser:
    """A denoiser ``(noisy (H, W, 3) in [0, 1], strength on the same scale) -> denoised``.

    Attributes:
        name: in tables and folders.
        settings: how it is called, for the record.
        run: the denoiser.
        factors: strengths tried, as multiples of the noise level.
    """

    name: str
    settings: str
    run: Callable[[FloatImage, float], FloatImage]
    factors: tuple[float, ...]

    def __call__(self, noisy: Image8, strength: float) -> Image8:
        """Denoise an 8-bit image; values above 1 or below 0 are clipped, the rest rounded."""
        denoised = self.run(noisy.astype(np.float32) / 255, strength)
        return np.clip(denoised * 255 + 0.5, 0, 255).astype(np.uint8)


def _nl_means(noisy: FloatImage, strength: float) -> FloatImage:
    result: FloatImage = denoise_nl_means(
        noisy, patch_size=5, patch_distance=9, h=strength, fast_mode=True, channel_axis=-1
    )
    return result


def _total_variation(noisy: FloatImage, strength: float) -> FloatImage:
    result: FloatImage = denoise_tv_chambolle(noisy, weight=strength, channel_axis=-1)
    return result


def _bm3d(noisy: FloatImage, strength: float) -> FloatImage:
    import bm3d  # optional

    result: FloatImage = bm3d.bm3d_rgb(noisy, strength)
    return result


NL_MEANS = LibraryDenoiser(
    "NLM", "patch_size=5, patch_distance=9, h tuned", _nl_means, (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7)
)
TOTAL_VARIATION = LibraryDenoiser(
    "TV", "denoise_tv_chambolle, weight tuned", _total_variation, (0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.1)
)
BM3D = LibraryDenoiser("BM3D", "bm3d_rgb, sigma_psd tuned", _bm3d, (0.8, 1.0, 1.25, 1.6))


def installed() -> list[LibraryDenoiser]:
    """Those that can be run here."""
    bm3d = [BM3D] if importlib.util.find_spec("bm3d") else []
    return [NL_MEANS, TOTAL_VARIATION, *bm3d]


def noise_level(pairs: Sequence[tuple[Image8, Image8]]) -> float:
    """Root mean square of noisy minus clean over ``(clean, noisy)`` images, on the [0, 1] scale."""
    squares = [np.mean((noisy.astype(float) - clean) ** 2) for clean, noisy in pairs]
    return float(np.sqrt(np.mean(squares)) / 255)


def tune(denoiser: LibraryDenoiser, pairs: Sequence[tuple[Image8, Image8]]) -> float:
    """The strength, among the denoiser's factors times the noise level, with the best mean PSNR on the pairs."""
    level = noise_level(pairs)

    def mean_psnr_db(factor: float) -> float:
        scores = [
            peak_signal_noise_ratio(clean, denoiser(noisy, factor * level), data_range=255) for clean, noisy in pairs
        ]
        return float(np.mean(scores))

    return level * max(denoiser.factors, key=mean_psnr_db)
