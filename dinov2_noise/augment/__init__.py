"""The views of one image: the same random draws for a noisy image and its denoised twin."""
