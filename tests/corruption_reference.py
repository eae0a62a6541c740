"""The corruptions of ImageNet-C, pixel by pixel: slow, and written apart from the package, as its reference.

Every function takes (image, parameters…, rng) with image (H, W, 3) in [0, 1] and draws from ``rng`` the same arrays in
the same order as the package; all else is loops. Results are not clipped, unless the definition needs it within.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np


def mirror(i, n):
    """… c b a b c … (the border pixel once)."""
    i = abs(i) % (2 * n - 2)
    return min(i, 2 * n - 2 - i)


def reflect(i, n):
    """… b a a b c … (the border pixel twice)."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


def clamp(i, n):
    return min(max(i, 0), n - 1)


def blur(image, sigma, truncate=4.0, border=clamp):
    reach = int(truncate * sigma + 0.5)
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    for axis in (0, 1):
        n, out = image.shape[axis], 0.0
        for k, tap in zip(range(-reach, reach + 1), taps, strict=True):
            out = out + tap * image.take([border(i + k, n) for i in range(n)], axis)
        image = out / sum(taps)
    return image


def bilinear(image, y, x, border):
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for i, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for j, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            total = total + share_y * share_x * image[border(i, image.shape[0]), border(j, image.shape[1])]
    return total


def pixels(function, height, width):
    return np.array([[function(y, x) for x in range(width)] for y in range(height)])


def additive(image, sigma, rng):
    noise = rng.normal(size=image.shape)
    return np.array([x + sigma * z for x, z in zip(image.flat, noise.flat, strict=True)]).reshape(image.shape)


def multiplicative(image, sigma, rng):
    noise = rng.normal(size=image.shape)
    return np.array([x * (1 + sigma * z) for x, z in zip(image.flat, noise.flat, strict=True)]).reshape(image.shape)


def shot(image, photons, rng):
    return np.array([rng.poisson(x * photons) / photons for x in image.flat]).reshape(image.shape)


def impulse(image, share, rng):
    struck, salt = rng.random(image.shape), rng.random(image.shape)
    values = zip(image.flat, struck.flat, salt.flat, strict=True)
    return np.array([(1.0 if s <= 0.5 else 0.0) if u <= share else x for x, u, s in values]).reshape(image.shape)


def defocus(image, radius, sigma):
    reach, taps = (8, 1) if radius <= 8 else (radius, 2)
    side = 2 * reach + 1
    disc = pixels(lambda y, x: float((y - reach) ** 2 + (x - reach) ** 2 <= radius**2), side, side)
    near = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-taps, taps + 1)]
    smooth = np.zeros((side, side))
    for a, weight_a in zip(range(-taps, taps + 1), near, strict=True):
        for b, weight_b in zip(range(-taps, taps + 1), near, strict=True):
            rows, columns = ([mirror(i + shift, side) for i in range(side)] for shift in (a, b))
            smooth += weight_a * weight_b * disc[rows][:, columns]
    smooth /= sum(near) ** 2 * disc.sum()
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for a in range(side):
        for b in range(side):
            rows = [mirror(y + a - reach, height) for y in range(height)]
            columns = [mirror(x + b - reach, width) for x in range(width)]
            out += smooth[a, b] * image[rows][:, columns]
    return out


def glass(image, sigma, reach, rounds, rng):
    x = (blur(image, sigma) * 255 + 1e-4).astype(int)
    height, width = x.shape[:2]
    for _ in range(rounds):
        offsets = rng.integers(-reach, reach, size=(height - 2 * reach, width - 2 * reach, 2))
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                down, right = offsets[h - reach - 1, w - reach - 1]
                x[h, w] = x[h + down, w + right]
    return blur(x / 255, sigma)


def trail(image, radius, sigma, angle):
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    height, width = image.shape[:2]

    def at(y, x):
        total = 0.0
        for i, weight in enumerate(weights):
            down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
            right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
            total = total + weight * image[clamp(y + down, height), clamp(x + right, width)]
        return total / sum(weights)

    return pixels(at, height, width)


def motion(image, radius, sigma, rng):
    return trail(image, radius, sigma, rng.uniform(-45, 45))


def zoomed(image, factor):
    height, width = image.shape[:2]
    crops = [math.ceil(side / factor) for side in (height, width)]
    starts = [(side - crop) // 2 for side, crop in zip((height, width), crops, strict=True)]
    crop = image[starts[0] : starts[0] + crops[0], starts[1] : starts[1] + crops[1]]
    larger = [round(side * factor) for side in crops]
    cuts = [(big - side) // 2 for big, side in zip(larger, (height, width), strict=True)]
    steps = [(side - 1) / (big - 1) for side, big in zip(crops, larger, strict=True)]

    def at(y, x):
        return bilinear(crop, (y + cuts[0]) * steps[0], (x + cuts[1]) * steps[1], clamp)

    return pixels(at, height, width)


def zoom(image, last, step):
    factors = np.arange(1, last, step)
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def snow(image, mean, sigma, factor, threshold, radius, trail_sigma, kept, rng):
    flakes = zoomed(rng.normal(mean, sigma, size=image.shape[:2]).astype(np.float32).astype(float), factor)
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    layer = trail((flakes * 255).astype(int) / 255, radius, trail_sigma, rng.uniform(-135, -45))
    height, width = layer.shape

    def at(y, x):
        pixel = image[y, x]
        gray = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
        white = np.maximum(pixel, gray * 1.5 + 0.5)
        return kept * pixel + (1 - kept) * white + layer[y, x] + layer[height - 1 - y, width - 1 - x]

    return pixels(at, height, width)


def frost(image, kept, added, rng, picture):
    kind, top, left = rng.integers(5), rng.integers(512), rng.integers(512)
    ice = picture(int(kind))
    return pixels(lambda y, x: kept * image[y, x] + added * ice[(top + y) % 512, (left + x) % 512], *image.shape[:2])


def fog(image, strength, decay, rng):
    side = 2
    while side < max(image.shape[:2]):
        side *= 2
    z, amplitude, step = np.zeros((side, side)), 100.0, side
    while step >= 2:
        count, half = side // step, step // 2
        draws = rng.uniform(-1, 1, size=(3, count, count)) * amplitude * amplitude

        def mean(points):
            return sum(z[y % side, x % side] for y, x in points) / 4

        cells = [(i, j, i * step, j * step) for i in range(count) for j in range(count)]
        for i, j, y, x in cells:
            corners = [(y, x), (y + step, x), (y, x + step), (y + step, x + step)]
            z[y + half, x + half] = mean(corners) + draws[0, i, j]
        for i, j, y, x in cells:
            on_top = [(y, x), (y, x + step), (y + half, x + half), (y - half, x + half)]
            z[y, x + half] = mean(on_top) + draws[1, i, j]
            on_left = [(y, x), (y + step, x), (y + half, x + half), (y + half, x - half)]
            z[y + half, x] = mean(on_left) + draws[2, i, j]
        step, amplitude = half, amplitude / decay
    z = (z - z.min()) / (z.max() - z.min())
    brightest = image.max()
    return pixels(
        lambda y, x: (image[y, x] + strength * z[y, x]) * brightest / (brightest + strength), *image.shape[:2]
    )


def brighter(image, added):
    def at(y, x):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[y, x])
        return colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))

    return pixels(at, *image.shape[:2])


def saturated(image, factor, added):
    def at(y, x):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[y, x])
        return colorsys.hsv_to_rgb(hue, min(max(saturation * factor + added, 0), 1), value)

    return pixels(at, *image.shape[:2])


def contrast(image, factor):
    out = np.empty_like(image)
    for channel in range(3):
        mean = sum(image[..., channel].flat) / image[..., channel].size
        out[..., channel] = [[(value - mean) * factor + mean for value in row] for row in image[..., channel]]
    return out


def elastic(image, amplitude, smoothness, jitter, rng):
    height, width = image.shape[:2]
    third, middle = min(height, width) // 3, np.array([width // 2, height // 2])
    old = np.array([middle + third, middle + np.array([third, -third]), middle - third], float)
    new = old + rng.uniform(-jitter, jitter, size=(3, 2))
    right, down = (
        amplitude * blur(rng.uniform(-1, 1, size=(height, width)), smoothness, 3.0, reflect) for _ in range(2)
    )

    def origin(x, y):
        # Barycentric: where (x, y) lies in the triangle `new`, in terms of the triangle `old`.
        (x0, y0), (x1, y1), (x2, y2) = new
        area = (y1 - y2) * (x0 - x2) + (x2 - x1) * (y0 - y2)
        a = ((y1 - y2) * (x - x2) + (x2 - x1) * (y - y2)) / area
        b = ((y2 - y0) * (x - x2) + (x0 - x2) * (y - y2)) / area
        return a * old[0] + b * old[1] + (1 - a - b) * old[2]

    tilted = pixels(lambda y, x: bilinear(image, *origin(x, y)[::-1], mirror), height, width)
    return pixels(lambda y, x: bilinear(tilted, y + down[y, x], x + right[y, x], reflect), height, width)


def box(image8, side, axis):
    """8-bit mean of the pixels whose centres lie in each of ``side`` equal parts; enlarging repeats pixels."""
    n = image8.shape[axis]
    parts = []
    for part in range(side):
        low, high = part * n / side, (part + 1) * n / side
        inside = [i for i in range(n) if low < i + 0.5 <= high] or [int((low + high) / 2)]
        parts.append(np.floor(image8.take(inside, axis).mean(axis) + 0.5))
    return np.stack(parts, axis)


def pixelated(image, factor):
    height, width = image.shape[:2]
    small = box(box(np.round(image * 255), int(width * factor), 1), int(height * factor), 0)
    return box(box(small, width, 1), height, 0) / 255


_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def jpeg_of_gray(gray, quality):
    """Luminance of a JPEG (ITU-T T.81, Annex K) of a gray image whose sides are multiples of 8."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((_LUMA_TABLE * scale + 50) // 100, 1, 255)
    basis = pixels(lambda u, x: math.cos((2 * x + 1) * u * math.pi / 16) * (math.sqrt(0.5) if u == 0 else 1) / 2, 8, 8)
    out = np.empty_like(gray)
    for y in range(0, gray.shape[0], 8):
        for x in range(0, gray.shape[1], 8):
            coefficients = basis @ (np.round(gray[y : y + 8, x : x + 8] * 255) - 128) @ basis.T
            block = basis.T @ (np.round(coefficients / table) * table) @ basis + 128
            out[y : y + 8, x : x + 8] = np.clip(np.round(block), 0, 255) / 255
    return out
