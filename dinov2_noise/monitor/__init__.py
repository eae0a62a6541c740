"""What a run has learned so far, told while it trains: measures, budget of time, log, console line, curves.

Torch alone; `dinov2_noise.upstream.train.monitored` attaches these to a run.
"""

from dinov2_noise.monitor.log import Measurement, read_log
from dinov2_noise.monitor.measures import agreement, knn_top1, linear_top1, uniformity

__all__ = ["Measurement", "agreement", "knn_top1", "linear_top1", "read_log", "uniformity"]
