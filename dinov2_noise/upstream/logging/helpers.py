"""``dinov2.logging.helpers``: the run's meters become known, so that measurements appear beside the losses.

Replaced: `MetricLogger`, by a subclass that tells the run of itself, and the run's monitoring of each step. Read
against lines 19-150.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from dinov2_noise.monitor.sinks import SCHEDULES
from dinov2_noise.upstream import runtime
from dinov2_noise.upstream.signatures import expect_signature


def attach(module: Any) -> None:
    expect_signature(module.MetricLogger, "__init__", lambda self, delimiter="\t", output_file=None: None)
    expect_signature(module.MetricLogger, "add_meter", lambda self, name, meter: None)
    expect_signature(
        module.MetricLogger,
        "log_every",
        lambda self, iterable, print_freq, header=None, n_iterations=None, start_iteration=0: None,
    )
    expect_signature(module.MetricLogger, "update", lambda self, **kwargs: None)
    expect_signature(module.MetricLogger, "dump_in_output_file", lambda self, iteration, iter_time, data_time: None)
    expect_signature(module.SmoothedValue, "__init__", lambda self, window_size=20, fmt=None: None)
    expect_signature(module.SmoothedValue, "update", lambda self, value, num=1: None)

    class MetricLogger(module.MetricLogger):  # type: ignore[misc]
        """Upstream's; of a run with a curriculum, the first that writes a file is the training's."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            run = runtime.current()
            if run is not None and run.metrics is None and self.output_file is not None:
                run.metrics = self

        def _monitoring(self) -> Any:
            run = runtime.current()
            return run.monitoring if run is not None and run.metrics is self else None

        def log_every(
            self,
            iterable: Iterable[Any],
            print_freq: int,
            header: str | None = None,
            n_iterations: int | None = None,
            start_iteration: int = 0,
        ) -> Iterator[Any]:
            options = {"header": header, "n_iterations": n_iterations, "start_iteration": start_iteration}
            steps = partial(super().log_every, print_freq=print_freq, **options)
            monitoring = self._monitoring()
            if monitoring is None:
                return iter(steps(iterable))
            return iter(monitoring.follow(steps, iterable, start_iteration))

        def update(self, **values: Any) -> None:
            super().update(**values)
            monitoring = self._monitoring()
            if monitoring is not None and "total_loss" in values:  # upstream's last call for a step
                monitoring.after_step(self)

        def dump_in_output_file(self, iteration: int, iter_time: float, data_time: float) -> None:
            super().dump_in_output_file(iteration, iter_time, data_time)
            monitoring = self._monitoring()
            if monitoring is not None:
                # Of schedules the step's own value: the median of the last 20 lags behind by ten steps.
                meters = {name: m.value if name in SCHEDULES else m.median for name, m in self.meters.items()}
                monitoring.write(iteration, {"iter_time": iter_time, "data_time": data_time, **meters})

    MetricLogger.__module__ = module.__name__
    MetricLogger.__qualname__ = "MetricLogger"
    module.MetricLogger = MetricLogger


def show(metrics: Any, name: str, value: float, fmt: str = "{value:.4f}") -> None:
    """Show ``value`` in console and metrics file until the next one comes.

    Upstream's meters show the median of the last 20 values, which for one value in 100 steps would be that of long ago:
    this one's window is 1. Every process must show the same names, since upstream sums all meters over processes at the
    end.
    """
    from dinov2.logging import SmoothedValue

    if name not in metrics.meters:
        metrics.add_meter(name, SmoothedValue(window_size=1, fmt=fmt))
    metrics.meters[name].update(value)


def hide(metrics: Any, name: str) -> None:
    """No longer show a value that is not measured any more."""
    metrics.meters.pop(name, None)
