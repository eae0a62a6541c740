"""Starting from released or own weights: one reader for every layout, one loader that says what it did.

`read` finds out what a file holds and gives it upstream's names; `load_backbone` puts it into upstream's vision
transformer and reports loaded / resized / missing / unexpected; `describe` says what is in a file.
"""

from dinov2_noise.weights.architecture import Architecture, describe
from dinov2_noise.weights.loading import load_backbone
from dinov2_noise.weights.reading import Weights, read
from dinov2_noise.weights.report import Report, Row

__all__ = ["Architecture", "Report", "Row", "Weights", "describe", "load_backbone", "read"]
