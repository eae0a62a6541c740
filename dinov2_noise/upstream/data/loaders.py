"""``dinov2.data.loaders``: our datasets behind upstream's dataset strings, and the curriculum's sampler.

Replaced: `make_dataset` for the names registered in `dinov2_noise.data`, and `_make_sampler` for a dataset with a
curriculum (upstream hands the iteration to resume at over as ``seed``). Read against lines 47-109 and 112-214.
"""

from __future__ import annotations

import logging
from functools import wraps
from typing import Any

from dinov2_noise import data, xformers_ops
from dinov2_noise.augment.views import StagedViews
from dinov2_noise.curriculum import summary
from dinov2_noise.curriculum.sampler import CurriculumSampler
from dinov2_noise.errors import ConfigError, MetadataError
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.signatures import expect_signature

logger = logging.getLogger("dinov2")


def attach(module: Any) -> None:
    _replace_make_dataset(module)
    _replace_make_sampler(module)


def _replace_make_dataset(module: Any) -> None:
    original = expect_signature(
        module, "make_dataset", lambda *, dataset_str, transform=None, target_transform=None: None
    )

    @wraps(original)
    def make_dataset(*, dataset_str: str, transform: Any = None, target_transform: Any = None) -> Any:
        if dataset_str.split(":")[0] not in data.DATASETS:
            return original(dataset_str=dataset_str, transform=transform, target_transform=target_transform)
        logger.info('using dataset: "%s"', dataset_str)
        is_training = getattr(transform, "takes_views", False)
        if is_training:
            require_fast(dataset_str, transform.augmentation)
            target_transform = _no_target  # as upstream's lambda, which workers started afresh cannot unpickle
        run = runtime.current()
        has_draws = run is not None and is_training
        dataset: Any = data.make(dataset_str, transform, target_transform, knows_epoch=has_draws)
        logger.info("# of dataset samples: %s", f"{len(dataset):,d}")
        if run is not None and has_draws:
            require_denoised(dataset_str, run)
            dataset.view_loader = StagedViews(run.curriculum, run.seed)
        return dataset

    module.make_dataset = make_dataset


def _no_target(_target: Any) -> tuple[()]:
    """Pretraining has no labels."""
    return ()


def require_fast(dataset_str: str, augmentation: str) -> None:
    """Check that images of more than 8 bits, where the dataset string asks for them, get the augmentation that can.

    Raises:
        ConfigError: they do not.
    """
    if augmentation != "fast" and data.parse_dataset_string(dataset_str).full_depth:
        raise ConfigError(
            f"depth=full in train.dataset_path={dataset_str!r}, but DINOv2's own augmentation changes 8-bit pictures "
            "only: set `loader: {augmentation: fast}`, or take depth=full out"
        )


def require_denoised(dataset_str: str, run: runtime.Run) -> None:
    """Check that the dataset string names the denoised images that the curriculum reads.

    Raises:
        ConfigError: it does not.
    """
    if run.curriculum.needs_denoised and data.parse_dataset_string(dataset_str).denoised is None:
        raise ConfigError(
            "the curriculum has a stage that reads denoised images, but train.dataset_path names none: append "
            f"`:denoised=FOLDER` to {dataset_str!r} (made by `dinov2-noise denoise apply`)"
        )


def _replace_make_sampler(module: Any) -> None:
    original = expect_signature(
        module, "_make_sampler", lambda *, dataset, type=None, shuffle=False, seed=0, size=-1, advance=0: None
    )

    @wraps(original)
    def _make_sampler(*, dataset: Any, seed: int = 0, **options: Any) -> Any:
        run = runtime.current()
        if run is None or getattr(dataset, "view_loader", None) is None:
            return original(dataset=dataset, seed=seed, **options)
        _require_as_many_images(run, len(dataset))
        if seed >= run.curriculum.total_iterations:
            logger.info("dinov2-noise: the run is complete, %d iterations: nothing is left to train", seed)
            return []  # upstream's loop would take one more step
        logger.info("sampler: curriculum, from iteration %d", seed)
        if module_rank() == 0:
            logger.info(_summary(run, len(dataset)))
        return CurriculumSampler(
            sample_count=len(dataset),
            batch_size=run.cfg.train.batch_size_per_gpu,
            curriculum=run.curriculum,
            seed=run.seed,
            start_iteration=seed,
            rank=module_rank(),
            world_size=module_world_size(),
        )

    module._make_sampler = _make_sampler


def _require_as_many_images(run: runtime.Run, n_images: int) -> None:
    """The order of the images follows from their number.

    Raises:
        MetadataError: the checkpoint resumed from was made with another number of images.
    """
    if run.saved_n_images not in (None, n_images):
        raise MetadataError(
            f"the run was begun with {run.saved_n_images} images, train.dataset_path holds {n_images} now: give it the "
            "same images, or choose another --output-dir"
        )
    run.n_images = n_images


def _summary(run: runtime.Run, n_images: int) -> str:
    attention = "built-in" if xformers_ops.xformers_ops() is None else "xFormers"
    sizes = {"n_images": n_images, "world_size": module_world_size()}
    return summary.of_run(run.cfg, run.config, run.step, run.loader, attention=attention, **sizes)


def module_rank() -> int:
    import dinov2.distributed as distributed

    return int(distributed.get_global_rank())


def module_world_size() -> int:
    import dinov2.distributed as distributed

    return int(distributed.get_global_size())
