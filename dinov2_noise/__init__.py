"""Noise-robust and cheaper self-supervised pretraining, as a plug-in for DINOv2."""

__version__ = "0.1.0"
