"""``python -m dinov2_noise`` is the command ``dinov2-noise``."""

from dinov2_noise.cli import main

main()
