"""``dinov2.data.augmentations``: the same random view of a noisy image and of its denoised twin.

Replaced: `DataAugmentationDINO`, by a subclass that also takes `Views`. Crops of the main image come from upstream's
own ``__call__``; the twin's global crops replay the same random draws. Given an image it is upstream's. For stages
with other crops it makes one of its kind for their sizes. Read against lines 32-118.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinov2_noise.augment.replay import capture, replay
from dinov2_noise.augment.views import Views
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


def attach(module: Any) -> None:
    upstream_class = module.DataAugmentationDINO
    expect_signature(upstream_class, "__init__", _written_for)
    expect_signature(upstream_class, "__call__", lambda self, image: None)

    class DataAugmentationDINO(upstream_class):  # type: ignore[misc, valid-type]
        """Upstream's crops, and for `Views` with a twin also ``global_crops_anchor`` of the twin."""

        takes_views = True

        def at_sizes(self, global_px: int, local_px: int) -> Any:
            """The same augmentation with crops of other sizes in pixels; made once, silently, and then kept."""
            others = self.__dict__.setdefault("_others", {})
            if (global_px, local_px) not in others:
                scales = (self.global_crops_scale, self.local_crops_scale, self.local_crops_number)
                with _quiet(module):
                    others[global_px, local_px] = type(self)(*scales, global_px, local_px)
            return others[global_px, local_px]

        def __call__(self, image: Any) -> dict[str, Any]:
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
