"""``dinov2.data.augmentations``: the same random view of a noisy image and of its denoised twin.

Replaced: `DataAugmentationDINO`, by a subclass that also takes `Views`. With ``loader.augmentation: upstream``, and
without a section of ours, crops of the main image come from upstream's own ``__call__``, and the twin's global crops
replay the same random draws. With ``fast``, the transforms that upstream has built are read once, and carried out by
`dinov2_noise.augment.fast` on the same draws. For stages with other crops it makes one of its kind for their sizes.
Read against lines 32-118.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinov2_noise.augment.chains import read
from dinov2_noise.augment.fast import FastCrops
from dinov2_noise.augment.replay import capture, replay
from dinov2_noise.augment.views import Views
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.signatures import expect_signature


def _written_for(
    self: Any,
    global_crops_scale: Any,
    local_crops_scale: Any,
    local_crops_number: Any,
    global_crops_size: int = 224,
    local_crops_size: int = 96,
) -> None: ...


@contextmanager
def _quiet(module: Any) -> Iterator[None]:
    """Without the eight lines that upstream logs for each augmentation: here they would come from every worker."""
    kept, module.logger = module.logger, logging.Logger("quiet", level=logging.CRITICAL + 1)
    try:
        yield
    finally:
        module.logger = kept


def fast_crops(of: Any) -> FastCrops:
    """The crops that upstream's augmentation ``of`` makes, each read from the transforms it has built.

    Raises:
        PluginError: the checkout has other transforms than those known to `dinov2_noise.augment.chains`.
    """
    globals_ = [read(of.geometric_augmentation_global, change) for change in (of.global_transfo1, of.global_transfo2)]
    return FastCrops(globals_, read(of.geometric_augmentation_local, of.local_transfo), of.local_crops_number)


def attach(module: Any) -> None:
    upstream_class = module.DataAugmentationDINO
    expect_signature(upstream_class, "__init__", _written_for)
    expect_signature(upstream_class, "__call__", lambda self, image: None)

    class DataAugmentationDINO(upstream_class):  # type: ignore[misc, valid-type]
        """Upstream's crops, and for `Views` with a twin also ``global_crops_anchor`` of the twin."""

        takes_views = True

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.augmentation = runtime.loader().augmentation
            self._fast: FastCrops | None = None

        def at_sizes(self, global_px: int, local_px: int) -> Any:
            """The same augmentation with crops of other sizes in pixels; made once, silently, and then kept."""
            others = self.__dict__.setdefault("_others", {})
            if (global_px, local_px) not in others:
                scales = (self.global_crops_scale, self.local_crops_scale, self.local_crops_number)
                with _quiet(module):
                    other = others[global_px, local_px] = type(self)(*scales, global_px, local_px)
                other.augmentation = self.augmentation
            return others[global_px, local_px]

        def __call__(self, image: Any) -> dict[str, Any]:
            if self.augmentation == "fast":
                self._fast = self._fast or fast_crops(self)
                return self._fast(image.main, image.twin) if isinstance(image, Views) else self._fast(image)
            if not isinstance(image, Views):
                return dict(super().__call__(image))
            before = capture()
            output = dict(super().__call__(image.main))
            if image.twin is not None:
                after = capture()
                replay(before)
                output["global_crops_anchor"] = self._global_crops(image.twin)
                replay(after)
            return output

        def _global_crops(self, image: Any) -> list[Any]:
            """The two global crops in upstream's order of random draws."""
            first = self.global_transfo1(self.geometric_augmentation_global(image))
            second = self.global_transfo2(self.geometric_augmentation_global(image))
            return [first, second]

    # Pickled by name: a worker started afresh finds the subclass under upstream's name.
    DataAugmentationDINO.__module__ = module.__name__
    DataAugmentationDINO.__qualname__ = "DataAugmentationDINO"
    module.DataAugmentationDINO = DataAugmentationDINO
