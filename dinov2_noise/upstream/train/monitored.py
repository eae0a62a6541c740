"""`SSLMetaArch` is measured while it trains: what its EMA teacher has learned, how fast it goes, when it will end.

Everything happens between a step's losses and its checkpoint: upstream's loop hands the losses to its `MetricLogger`,
whose seam, `dinov2_noise.upstream.logging.helpers`, calls here. No random generator is used, no gradient is computed,
and no parameter changes, so a run's numbers are the same with and without. Read against lines 218-290 of upstream's
``train/train.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from dinov2_noise.curriculum.stages import Stage
from dinov2_noise.errors import PluginError
from dinov2_noise.monitor import console
from dinov2_noise.monitor.budget import Budget
from dinov2_noise.monitor.images import labelled_images, training_images
from dinov2_noise.monitor.log import LOG_NAME, Measurement, append, cut
from dinov2_noise.monitor.pace import Pace
from dinov2_noise.monitor.sinks import Sink, curve_names, open_sinks, require_packages
from dinov2_noise.monitor.values import described, probe_values, unlabelled_values
from dinov2_noise.upstream import rng, runtime
from dinov2_noise.upstream.train.features import Extractor, Kept, keep

logger = logging.getLogger("dinov2")


class Monitored:
    """Makes itself known to the run's monitoring; without a curriculum it does nothing."""

    _run: runtime.Run | None

    def prepare_for_distributed_training(self) -> None:
        """As below."""
        super().prepare_for_distributed_training()  # type: ignore[misc]
        if self._run is not None and self._run.monitor.enabled:
            self._run.monitoring = Monitoring(self._run, self)


def check(run: runtime.Run) -> None:
    """Find what would stop the monitoring later, before anything is written.

    Raises:
        DinoNoiseError: a package, a data set, labels or twins are missing.
    """
    if run.monitor.enabled:
        require_packages(run.monitor)
        if _period(run) > 0:
            labelled_images(run.monitor)


def _period(run: runtime.Run) -> int:
    return int(run.cfg.evaluation.eval_period_iterations)


class Monitoring:
    """What one process does of it; only the first writes.

    Args:
        run: with the section ``monitor``. model: `SSLMetaArch`, wrapped for training.
    """

    def __init__(self, run: runtime.Run, model: Any) -> None:
        self._run, self._model, self._config = run, model, run.monitor
        self._is_first = dist.get_rank() == 0
        self._output = Path(run.cfg.train.output_dir)
        own_images = int(run.cfg.train.batch_size_per_gpu)
        self._batch_size = 2 * own_images // run.step.micro_batches  # the global crops of a step: they fit
        self._pace = Pace(run.curriculum, int(run.cfg.crops.local_crops_number), own_images * dist.get_world_size())
        self._budget = Budget(self._config.max_time_share)
        self._sinks: list[Sink] | None = None
        self._kept: list[Kept] = []
        self._first_iteration, self._iteration, self._done = 0, -1, -1
        self._stage: Stage | None = None
        self._began = self._step_began = time.perf_counter()
        self._waited_s = self._paused_s = 0.0
        self._tells_skipping = True

    def follow(
        self, steps: Callable[[Iterable[Any]], Iterator[Any]], loader: Iterable[Any], first_iteration: int
    ) -> Iterator[Any]:
        """Upstream's ``log_every``, followed.

        Args:
            steps: ``log_every`` for a loader. loader: of the training. first_iteration: of this process.

        Raises:
            PluginError: upstream's loop does not hand over its losses.
        """
        self._first_iteration, self._iteration, self._done = first_iteration, first_iteration - 1, first_iteration - 1
        if first_iteration < self._run.curriculum.total_iterations:
            self._begin(first_iteration)
        try:
            yield from steps(self._timed(loader))
        except BaseException:
            with suppress(OSError):  # a failure to write the rest must not hide what has stopped the run
                self._close()
            raise
        self._close()

    def _close(self) -> None:
        for sink in self._sinks or ():
            sink.close()
        self._sinks = None

    def _begin(self, first_iteration: int) -> None:
        if self._is_first:
            cut(self._output / LOG_NAME, first_iteration)
        self._began = time.perf_counter()
        if _period(self._run) > 0:
            self._kept = list(self._read_images())
            self._budget.spent_s = time.perf_counter() - self._began

    def _read_images(self) -> Iterator[Kept]:
        cfg, config = self._run.cfg, self._config
        side_px = config.image_px or int(cfg.crops.global_crops_size)
        sets = {}
        if config.n_images:
            sets["unlabelled"] = training_images(cfg.train.dataset_path, config.n_images)
        labelled = labelled_images(config)
        if labelled is not None:
            sets["train"], sets["val"] = labelled
        for name, images in sets.items():
            yield keep(name, images, side_px, workers=int(cfg.train.num_workers))

    def _timed(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of ``loader``; how long each was waited for."""
        batches = iter(loader)
        while True:
            if self._done != self._iteration:
                raise PluginError(
                    "upstream's training loop has made a step without handing its losses to MetricLogger.update: this "
                    "version of DINOv2 is not one dinov2-noise was written for; monitor.enabled=false goes without"
                )
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited_s = time.perf_counter() - asked
            self._iteration += 1
            yield batch

    def after_step(self, metrics: Any) -> None:
        """The losses of a step are known, and finite; every process must call it.

        Args:
            metrics: upstream's `MetricLogger`, with those of this step.
        """
        if self._done == self._iteration:  # no step was made since
            return
        iteration = self._done = self._iteration
        stage = self._run.curriculum.stage_at(iteration)
        is_last = iteration == self._run.curriculum.total_iterations - 1
        if self._stage is not None:  # the first step also starts workers, and is no measure of speed
            now = time.perf_counter()
            self._pace.add(iteration, now - self._step_began - self._paused_s, self._waited_s)
        self._step_began, self._paused_s = time.perf_counter(), 0.0
        self._show_stage(stage)
        if self._kept and self._is_due(iteration, is_last):
            began = time.perf_counter()
            self._measure(iteration, stage)
            self._paused_s = time.perf_counter() - began
            self._budget.spend(self._paused_s)
        period = self._config.line_period_iterations
        if self._is_first and period and ((iteration + 1) % period == 0 or is_last):
            self._say(metrics, stage)

    def write(self, iteration: int, meters: Mapping[str, float]) -> None:
        """Add what upstream logs of an iteration to the curves."""
        if self._is_first:
            stage = self._run.curriculum.stage_at(iteration)
            self._add(iteration, {**curve_names(meters), "stage": float(stage.index)})

    def _add(self, iteration: int, values: Mapping[str, float]) -> None:
        for sink in self._open_sinks():
            sink.add(iteration, values)

    def _open_sinks(self) -> list[Sink]:
        """Opened late: loader workers, which are forked before, must not inherit their threads."""
        if self._sinks is None:
            first = self._first_iteration
            self._sinks = open_sinks(self._config, self._output, first, self._settings, _undisturbed)
        return self._sinks

    def _settings(self) -> dict[str, Any]:
        content = OmegaConf.to_container(self._run.cfg, resolve=True)
        assert isinstance(content, dict)
        return {str(name): value for name, value in content.items()}

    def _show_stage(self, stage: Stage) -> None:
        if stage is self._stage:
            return
        self._stage = stage
        if self._is_first:
            text = f"{stage.name} ({stage.index + 1}/{len(self._run.curriculum.stages)}): view {stage.view}"
            for sink in self._open_sinks():
                sink.add_text(self._iteration, "stage/name", text)

    def _is_due(self, iteration: int, is_last: bool) -> bool:
        """Whether to measure now; the first process decides for all."""
        if is_last:
            return True
        if (iteration + 1) % _period(self._run):
            return False
        elapsed = time.perf_counter() - self._began
        answer = torch.tensor([float(self._budget.allows(elapsed))]).cuda()
        dist.broadcast(answer, src=0)
        if bool(answer.item()):
            self._tells_skipping = True
            return True
        if self._is_first and self._tells_skipping:
            self._tells_skipping = False
            logger.info(
                "dinov2-noise: not measured at iteration %d, nor until %s of training have passed: it would take more "
                "than monitor.max_time_share, %g (docs/monitoring.md)",
                *(iteration, console.duration(self._budget.next_s()), self._config.max_time_share),
            )
        return False

    def _measure(self, iteration: int, stage: Stage) -> None:
        began = time.perf_counter()
        extract = Extractor(self._model, self._batch_size, always_full=self._run.step.compile)
        found = {kept.name: {view: extract(kept, view) for view in kept.images} for kept in self._kept}
        extract.close()
        if not self._is_first:
            return
        values: dict[str, float] = {}
        sizes = {kept.name: kept.n_images for kept in self._kept}
        if "train" in found:
            labels = {kept.name: kept.labels for kept in self._kept}
            values |= probe_values(*(found["train"], labels["train"], found["val"], labels["val"]), k=self._config.knn)
        if "unlabelled" in found:
            values |= unlabelled_values(found["unlabelled"], k=self._config.knn)
        if not all(features.is_finite for views in found.values() for features in views.values()):
            logger.warning("dinov2-noise: features are not finite at iteration %d, they are left out", iteration)
        measurement = Measurement(iteration, stage.name, round(time.perf_counter() - began, 3), values, sizes)
        append(self._output / LOG_NAME, measurement)
        self._add(iteration, {f"monitor/{name}": value for name, value in values.items()})
        for sink in self._open_sinks():
            sink.flush()
        logger.info(
            "dinov2-noise: measured at iteration %d, stage %r: %s (%.1f s)",
            *(iteration, stage.name, described(values), measurement.seconds),
        )

    def _say(self, metrics: Any, stage: Stage) -> None:
        images_per_s, waited = self._pace.take()
        gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        standing = console.Standing(
            stage=stage.name,
            stage_number=stage.index + 1,
            n_stages=len(self._run.curriculum.stages),
            view=stage.view,
            iteration=self._iteration + 1,
            n_iterations=self._run.curriculum.total_iterations,
            epoch_length_iterations=self._run.curriculum.epoch_length_iterations,
            losses={name: meter.value for name, meter in metrics.meters.items() if name.endswith("_loss")},
            learning_rate=metrics.meters["lr"].value,
            images_per_s=images_per_s,
            waited=waited,
            left_s=self._pace.left_s(self._iteration),
            memory_gib=gib,
        )
        logger.info("%s", console.line(standing))
        speed = {"speed/images_per_s": images_per_s, "speed/waited": waited}
        self._add(self._iteration, {name: value for name, value in speed.items() if value is not None})
        for sink in self._open_sinks():
            sink.flush()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Random generators are afterwards what they were."""
    state = rng.capture()
    try:
        yield
    finally:
        rng.restore(state)
