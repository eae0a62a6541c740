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
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2_noise.augment.low_pass import NYQUIST_CYCLES_PER_PX, low_pass
from dinov2_noise.augment.pixels import Picture, size_of
from dinov2_noise.augment.replay import rng_scope
from dinov2_noise.errors import PairError


class Views(NamedTuple):
    """What the student sees, and, where an anchor wants it, the denoised twin of equal size for the frozen teacher."""

    main: Picture
    twin: Picture | None


class LowPass(NamedTuple):
    """A filter of finished crops, see `dinov2_noise.augment.low_pass.low_pass`; at cut-off 0.5 there is none."""

    cutoff_cycles_per_px: float
    kind: str
    order: int


class PatchLike(Protocol):
    """What makes a random part of an image worse."""

    def apply(self, image: Picture, rng: np.random.Generator, /) -> Picture: ...


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
    """What the sampler yields: image, stage, place in the run, which image the student sees, the iteration, and the
    epoch, how often the whole set has been drawn before."""

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
    @property
    def epoch(self) -> int: ...


class ViewLoader(Protocol):
    """Images by index, noisy and denoised.

    See also `FreshLoader` and `DeepLoader`.
    """

    def noisy(self, index: int, /) -> Image.Image: ...
    def denoised(self, index: int, /) -> Image.Image: ...


class FreshLoader(Protocol):
    """A loader with new noise each epoch; it is one if it has an attribute ``wants_epoch``, and that is true."""

    def noisy(self, index: int, epoch: int, /) -> Image.Image: ...


class DeepLoader(Protocol):
    """A loader of images of more than 8 bits, (H, W, 3) float32 in [0, 1]; it is one if its attribute ``full_depth`` is
    true. Its `noisy_pixels` takes an epoch as `FreshLoader`'s ``noisy`` does."""

    def noisy_pixels(self, index: int, epoch: int | None = None, /) -> NDArray[np.float32]: ...
    def denoised_pixels(self, index: int, /) -> NDArray[np.float32]: ...


Transform = Callable[[Views], Mapping[str, Any]]


class ResizableTransform(Protocol):
    """A transform that exists for other sizes of crops too; needed by stages with sizes of their own."""

    def at_sizes(self, global_px: int, local_px: int, /) -> Transform: ...


class ViewSource(ViewLoader, Protocol):
    """Images by index, and the random transform that makes a sample of them, with crops of the last stage's sizes."""

    @property
    def transform(self) -> Transform: ...


def load_views(source: ViewLoader, index: int, view: str, *, needs_twin: bool, epoch: int = 0) -> Views:
    """The images of number ``index`` that are needed; no other is read.

    The twin of a denoised view is that view itself.

    Args:
        source: where the images are.
        index: of the image.
        view: which one the student sees, ``noisy`` or ``denoised``.
        needs_twin: whether the denoised one is needed beside it.
        epoch: how often the whole set has been drawn before, for noise that is new each time.

    Raises:
        PairError: the twins differ in size.
        ValueError: ``view`` is neither ``noisy`` nor ``denoised``.
    """
    read_noisy, read_denoised = _readers(source)
    if view == "denoised":
        denoised = read_denoised(index)
        return Views(denoised, denoised if needs_twin else None)
    if view != "noisy":
        raise ValueError(f"view {view!r} is neither 'noisy' nor 'denoised'")
    is_fresh = getattr(source, "wants_epoch", False)
    noisy = read_noisy(index, epoch) if is_fresh else read_noisy(index)
    if not needs_twin:
        return Views(noisy, None)
    twin = read_denoised(index)
    size, twin_size = size_of(noisy), size_of(twin)
    if twin_size != size:
        raise PairError(
            f"image {index}: the noisy one is {size[0]}x{size[1]} px, "
            f"its denoised twin {twin_size[0]}x{twin_size[1]} px. Was the denoised folder made from this noisy one?"
        )
    return Views(noisy, twin)


def _readers(source: ViewLoader) -> tuple[Callable[..., Picture], Callable[[int], Picture]]:
    """Of the noisy and of the denoised images."""
    if getattr(source, "full_depth", False):
        deep = cast(DeepLoader, source)
        return deep.noisy_pixels, deep.denoised_pixels
    return source.noisy, source.denoised


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
        views = load_views(source, draw.index, draw.view, needs_twin=stage.needs_twin, epoch=draw.epoch)
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

    def _patched(self, image: Picture, stage: StageLike, draw: DrawLike) -> Picture:
        patches = stage.patches_at(draw.iteration)
        if patches:
            rng = np.random.default_rng(sample_seed(self._seed, draw.number, stream=3))
            for patch in patches:
                image = patch.apply(image, rng)
        return image
