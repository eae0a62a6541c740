"""Which views of an image a stage needs, and their augmentation, independent of which worker does it.

This module knows stages and draws by their attributes only: in the flow of data, augmentation comes before the
curriculum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dinov2_noise.augment.low_pass import NYQUIST_CYCLES_PER_PX, low_pass
from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.errors import PairError


class Views(NamedTuple):
    """What the student sees, and, where an anchor wants it, the denoised twin of equal size for the frozen teacher."""

    main: Image.Image
    twin: Image.Image | None


class LowPass(NamedTuple):
    """A filter of finished crops, see `dinov2_noise.augment.low_pass.low_pass`; at cut-off 0.5 there is none."""

    cutoff_cycles_per_px: float
    kind: str
    order: int


class PatchLike(Protocol):
    """What makes a random part of an image worse."""

    def apply(self, image: Image.Image, rng: np.random.Generator, /) -> Image.Image: ...


class CropsLike(Protocol):
    """Sizes of a stage's crops."""

    @property
    def global_px(self) -> int: ...
    @property
    def local_px(self) -> int: ...
    @property
    def patches_per_side(self) -> int: ...


class StageLike(Protocol):
    """The part of a stage that decides how a sample is made."""

    @property
    def needs_twin(self) -> bool: ...
    @property
    def crops(self) -> CropsLike: ...
    def patches_at(self, iteration: int, /) -> Sequence[PatchLike]: ...
    def low_pass_at(self, iteration: int, /) -> LowPass | None: ...


class CurriculumLike(Protocol):
    """Stages by index."""

    @property
    def stages(self) -> Sequence[StageLike]: ...


class DrawLike(Protocol):
    """What the sampler yields: image, stage, place in the run, which image the student sees, and the iteration."""

    @property
    def index(self) -> int: ...
    @property
    def stage(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def view(self) -> str: ...
    @property
    def iteration(self) -> int: ...


class ViewLoader(Protocol):
    """Images by index, noisy and denoised."""

    def noisy(self, index: int, /) -> Image.Image: ...
    def denoised(self, index: int, /) -> Image.Image: ...


Transform = Callable[[Views], Mapping[str, Any]]


class ResizableTransform(Protocol):
    """A transform that exists for other sizes of crops too; needed by stages with sizes of their own."""

    def at_sizes(self, global_px: int, local_px: int, /) -> Transform: ...


class ViewSource(ViewLoader, Protocol):
    """Images by index, and the random transform that makes a sample of them, with crops of the last stage's sizes."""

    @property
    def transform(self) -> Transform: ...


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
    begins, 2 the view that a mixed stage shows, 3 its patches.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=(number, stream)).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))


# The lists of crops in a sample of upstream's; those for its teacher are the student's, object by object.
_CROPS = ("global_crops", "global_crops_teacher", "local_crops", "global_crops_anchor")


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a loader's worker: the last bits of an FFT depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def filter_crops(sample: Mapping[str, Any], settings: LowPass) -> dict[str, Any]:
    """The sample with all crops low-passed, each on its own, and lists that share crops still sharing them.

    Crops may be normalised already: the filter is linear and keeps the mean, so the order does not matter.
    """
    filtered: dict[int, Tensor] = {}
    found = {name: sample[name] for name in _CROPS if name in sample}
    for crops in found.values():
        new = [crop for crop in crops if id(crop) not in filtered]
        if new:
            with _one_thread():
                filtered.update(zip(map(id, new), low_pass(torch.stack(new), *settings), strict=True))
    return {**sample, **{name: [filtered[id(crop)] for crop in crops] for name, crops in found.items()}}


class StagedViews:
    """Makes the sample of a draw: the views of its stage, transformed under a seed of its own.

    In this order: patches on the student's image, before it is cropped and not on the twin; the transform, at the
    stage's sizes; the low-pass on all crops, twins' included. The result depends on the source, the curriculum,
    ``seed`` and the draw, not on the worker, the rank or the samples before it. Picklable.

    Args:
        curriculum: the run's stages.
        seed: of the augmentation, at least 0.
    """

    def __init__(self, curriculum: CurriculumLike, seed: int) -> None:
        self._curriculum = curriculum
        self._seed = seed

    def __call__(self, source: ViewSource, draw: DrawLike) -> dict[str, Any]:
        """``source.transform`` of the views, the draw's ``stage`` and ``number``, and a ``mask_seed`` for its batch.

        Where the stage has other crops than the last, ``mask_grid`` says how many patches a global crop has per side.

        Raises:
            PairError: see `load_views`.
        """
        stage = self._curriculum.stages[draw.stage]
        views = load_views(source, draw.index, draw.view, needs_twin=stage.needs_twin)
        views = views._replace(main=self._patched(views.main, stage, draw))
        transform, sizes = source.transform, {}
        if stage.crops != self._curriculum.stages[-1].crops:
            transform = cast(ResizableTransform, transform).at_sizes(stage.crops.global_px, stage.crops.local_px)
            sizes = {"mask_grid": stage.crops.patches_per_side}
        with rng_scope(sample_seed(self._seed, draw.number)):
            sample = transform(views)
        settings = stage.low_pass_at(draw.iteration)
        if settings is not None and settings.cutoff_cycles_per_px < NYQUIST_CYCLES_PER_PX:
            sample = filter_crops(sample, settings)
        return {
            **sample,
            **sizes,
            "stage": draw.stage,
            "number": draw.number,
            "mask_seed": sample_seed(self._seed, draw.number, stream=1),
        }

    def _patched(self, image: Image.Image, stage: StageLike, draw: DrawLike) -> Image.Image:
        patches = stage.patches_at(draw.iteration)
        if patches:
            rng = np.random.default_rng(sample_seed(self._seed, draw.number, stream=3))
            for patch in patches:
                image = patch.apply(image, rng)
        return image
