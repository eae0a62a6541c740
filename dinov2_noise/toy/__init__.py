"""The toy experiment of "Ditch the Denoiser": a small network learns digits with noise, and a curriculum helps."""
