"""The whole path once, small enough for a laptop: see docs/demo.md."""
