"""Which views of an image a stage needs, and their augmentation, independent of which worker does it.

This module knows stages and draws by their attributes only: in the flow of data, augmentation comes before the
curriculum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.errors import PairError


class Views(NamedTuple):
    """What the student sees, and, where an anchor wants it, the denoised twin of equal size for the frozen teacher."""

    main: Image.Image
    twin: Image.Image | None


class StageLike(Protocol):
    """The part of a stage that decides whether twins are read."""

    @property
    def needs_twin(self) -> bool: ...


class CurriculumLike(Protocol):
    """Stages by index."""

    @property
    def stages(self) -> Sequence[StageLike]: ...


class DrawLike(Protocol):
    """What the sampler yields: image, stage, place in the run, and which image the student sees."""

    @property
    def index(self) -> int: ...
    @property
    def stage(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def view(self) -> str: ...


class ViewLoader(Protocol):
    """Images by index, noisy and denoised."""

    def noisy(self, index: int, /) -> Image.Image: ...
    def denoised(self, index: int, /) -> Image.Image: ...


class ViewSource(ViewLoader, Protocol):
    """Images by index, and the random transform that makes a sample of them."""

    @property
    def transform(self) -> Callable[[Views], Mapping[str, Any]]: ...


def load_views(source: ViewLoader, index: int, view: str, *, needs_twin: bool) -> Views:
    """The images of number ``index`` that are needed; no other is read.

    The twin of a denoised view is that view itself.

    Raises:
        PairError: the twins differ in size.
        ValueError: ``view`` is neither ``noisy`` nor ``denoised``.
    """
    if view == "denoised":
        denoised = source.denoised(index)
        return Views(denoised, denoised if needs_twin else None)
    if view != "noisy":
        raise ValueError(f"view {view!r} is neither 'noisy' nor 'denoised'")
    noisy = source.noisy(index)
    if not needs_twin:
        return Views(noisy, None)
    twin = source.denoised(index)
    if twin.size != noisy.size:
        raise PairError(
            f"image {index}: the noisy one is {noisy.size[0]}x{noisy.size[1]} px, "
            f"its denoised twin {twin.size[0]}x{twin.size[1]} px. Was the denoised folder made from this noisy one?"
        )
    return Views(noisy, twin)


def sample_seed(seed: int, number: int, stream: int = 0) -> int:
    """A seed below 2^63 for sample ``number`` of a run with ``seed``, all at least 0; neighbours are unrelated.

    ``stream`` tells apart what one sample draws for several purposes: 0 its augmentation, 1 the masks of the batch it
    begins, 2 the view that a mixed stage shows.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=(number, stream)).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))


class StagedViews:
    """Makes the sample of a draw: the views of its stage, transformed under a seed of its own.

    The result depends on the source, the curriculum, ``seed`` and the draw, not on the worker, the rank or the samples
    before it. Picklable.

    Args:
        curriculum: the run's stages.
        seed: of the augmentation, at least 0.
    """

    def __init__(self, curriculum: CurriculumLike, seed: int) -> None:
        self._curriculum = curriculum
        self._seed = seed

    def __call__(self, source: ViewSource, draw: DrawLike) -> dict[str, Any]:
        """``source.transform`` of the views, the draw's ``stage`` and ``number``, and a ``mask_seed`` for its batch.

        Raises:
            PairError: see `load_views`.
        """
        stage = self._curriculum.stages[draw.stage]
        views = load_views(source, draw.index, draw.view, needs_twin=stage.needs_twin)
        with rng_scope(sample_seed(self._seed, draw.number)):
            sample = source.transform(views)
        return {
            **sample,
            "stage": draw.stage,
            "number": draw.number,
            "mask_seed": sample_seed(self._seed, draw.number, stream=1),
        }
