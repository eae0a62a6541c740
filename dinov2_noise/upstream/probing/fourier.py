"""A Fourier heat map of a backbone and its classifiers; the perturbation comes after upstream's resize and crop, before
its normalisation. The mathematics is in `dinov2_noise.evaluation.fourier`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2_noise import data
from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.counting import labels_of
from dinov2_noise.evaluation.fourier import FourierGrid, Frequency, Pictures, count_right, random_signs, spread
from dinov2_noise.evaluation.fourier_map import Count, HeatMapFolder
from dinov2_noise.upstream.probing.model import eval_transform
from dinov2_noise.upstream.probing.probe import Loaded, ProbeRequest


@dataclass(frozen=True)
class FourierRequest:
    """What is asked for.

    Attributes:
        probe: model, classifiers and images. output: folder for the results. grid: which frequencies.
        norm: L2 norm of the perturbation of a channel, on [0, 1]. n_images: of the validation images, evenly spread.
        seed: of the signs.
    """

    probe: ProbeRequest
    output: Path
    grid: FourierGrid
    norm: float
    n_images: int
    seed: int = 0

    def folder(self) -> HeatMapFolder:
        """Where the map goes; identified by all that decides it.

        Raises:
            ConfigError: norm or number of images below what makes sense.
            DinoNoiseError: files or images are missing.
        """
        if self.norm <= 0 or self.n_images < 1:
            raise ConfigError(f"--norm {self.norm}, --images {self.n_images}: above 0 and at least 1 are needed")
        of_probe = self.probe.identity()
        identity = {
            **of_probe,
            "n_images": min(self.n_images, of_probe["images"]["n_images"]),
            "grid": {"n": self.grid.n, "limit_cycles_per_px": self.grid.limit_cycles_per_px, "side": self.grid.side},
            "norm": self.norm,
            "seed": self.seed,
        }
        return HeatMapFolder(self.output, identity, self.grid, identity["n_images"])

    def counter(self, loaded: Loaded) -> Count:
        """Loads the images; returns what counts those told right at a frequency."""
        probe = loaded.probe(self.output)
        pictures = load_pictures(self.probe, self.n_images, self.seed)
        mean, deviation = normalisation()

        def predict(images: Tensor) -> dict[str, Tensor]:
            return probe.predict((images - mean) / deviation)

        def count(frequency: Frequency | None) -> dict[str, int]:
            return count_right(pictures, predict, frequency, self.norm, self.probe.batch_size)

        return count


def load_pictures(request: ProbeRequest, n_images: int, seed: int) -> Pictures:
    """Validation images after upstream's resize and crop, 8-bit: that is all the transform has before it normalises.

    Raises:
        ConfigError: the dataset string asks for more bits.
    """
    if data.parse_dataset_string(request.val_dataset).full_depth:
        raise ConfigError(
            f"depth=full in {request.val_dataset!r}: the Fourier waves are added to 8-bit pictures; take it out here"
        )
    transform, (mean, deviation) = eval_transform(request.geometry), normalisation()
    dataset: Any = data.make(request.val_dataset, transform)
    targets = labels_of(dataset, request.val_dataset)
    indices = spread(n_images, len(dataset))

    def pixels(index: int) -> Tensor:
        image: Tensor = dataset[index][0]
        return (255 * (image * deviation + mean)).round().to(torch.uint8)

    with ThreadPoolExecutor(max(1, request.workers)) as pool:
        loaded = torch.stack(list(pool.map(pixels, indices)))
    return Pictures(loaded, targets[torch.tensor(indices)], random_signs(indices, seed))


def normalisation() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, (3, 1, 1), that upstream's transforms normalise with."""
    from dinov2.data.transforms import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    mean, deviation = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return mean[:, None, None], deviation[:, None, None]
