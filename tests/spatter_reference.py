"""Spatter of ImageNet-C pixel by pixel, as in :mod:`corruption_reference`: Canny, distances, equalised histogram."""

from __future__ import annotations

import math

import numpy as np
from corruption_reference import blur, clamp, mirror, pixels


def edges(gray):
    """Canny of an 8-bit image with thresholds 50 and 150, hysteresis by flooding."""
    height, width = gray.shape

    def value(y, x):
        return int(gray[clamp(y, height), clamp(x, width)])

    across = ((-1, 1), (0, 2), (1, 1))
    gx = pixels(lambda y, x: sum(w * (value(y + d, x + 1) - value(y + d, x - 1)) for d, w in across), height, width)
    gy = pixels(lambda y, x: sum(w * (value(y + 1, x + d) - value(y - 1, x + d)) for d, w in across), height, width)
    size = abs(gx) + abs(gy)

    def around(y, x):
        return size[y, x] if 0 <= y < height and 0 <= x < width else 0

    def is_ridge(y, x):
        if size[y, x] <= 50:
            return False
        angle = math.degrees(math.atan2(abs(gy[y, x]), abs(gx[y, x])))
        if angle < 22.5:
            return size[y, x] > around(y, x - 1) and size[y, x] >= around(y, x + 1)
        if angle > 67.5:
            return size[y, x] > around(y - 1, x) and size[y, x] >= around(y + 1, x)
        side = -1 if (gx[y, x] < 0) != (gy[y, x] < 0) else 1
        return size[y, x] > around(y - 1, x - side) and size[y, x] > around(y + 1, x + side)

    ridge = pixels(is_ridge, height, width)
    front = [(y, x) for y in range(height) for x in range(width) if ridge[y, x] and size[y, x] > 150]
    found = set(front)
    while front:
        y, x = front.pop()
        for place in [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
            if place not in found and 0 <= place[0] < height and 0 <= place[1] < width and ridge[place]:
                found.add(place)
                front.append(place)
    return found


def mean3(image):
    height, width = image.shape

    def at(y, x):
        near = [image[mirror(y + a, height), mirror(x + b, width)] for a in (-1, 0, 1) for b in (-1, 0, 1)]
        return sum(near) / 9

    return pixels(at, height, width)


def water(image, mean, sigma, smoothness, threshold, strength, rng):
    height, width = image.shape[:2]
    liquid = blur(rng.normal(mean, sigma, size=(height, width)), smoothness)
    thickness = (np.where(liquid < threshold, 0, liquid) * 255).astype(int)
    found = edges(thickness)
    far = pixels(lambda y, x: min([20.0, *(math.hypot(y - a, x - b) for a, b in found)]), height, width)
    near = (mean3(far) + 1e-9).astype(int)
    counts = [int((near == level).sum()) for level in range(256)]
    lowest = int(near.min())
    if counts[lowest] == near.size:
        level_of = {lowest: lowest}
    else:
        scale = 255 / (near.size - counts[lowest])
        level_of = {level: round(sum(counts[lowest + 1 : level + 1]) * scale) for level in range(lowest, 256)}
    flat = pixels(lambda y, x: level_of[near[y, x]], height, width)
    kernel = [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]

    def embossed(y, x):
        total = sum(
            kernel[a][b] * flat[mirror(y + a - 1, height), mirror(x + b - 1, width)] for a in range(3) for b in range(3)
        )
        return min(max(total, 0), 255)

    light = thickness * np.round(mean3(pixels(embossed, height, width)))
    if light.max() > 0:
        light = light / light.max() * strength
    return image + light[..., None] * np.array([175, 238, 238]) / 255


def mud(image, mean, sigma, smoothness, threshold, softness, rng):
    liquid = blur(rng.normal(mean, sigma, size=image.shape[:2]), smoothness)
    cover = blur(np.where(np.where(liquid < threshold, 0, liquid) > threshold, 1.0, 0.0), softness)
    cover = np.where(cover < 0.8, 0, cover)[..., None]
    return image * (1 - cover) + cover * np.array([63, 42, 20]) / 255
