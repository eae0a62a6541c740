"""Image files → 8-bit RGB, or an error that names the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dinov2_noise.errors import ImageError

# Pillow's modes of more than 8 bits per channel: `.convert("RGB")` clips those to 255, that is to white.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def load_rgb(path: Path) -> Image.Image:
    """The image in ``path`` as 8-bit RGB, fully decoded; for 8-bit files the pixels of Pillow's ``convert("RGB")``.

    Gray becomes three equal channels, an alpha channel is dropped, of several frames the first is taken, an EXIF
    orientation is not applied (nor does DINOv2).

    Raises:
        ImageError: there is no such file, it is empty, truncated, no image, or has 16 bits (or floats) per channel.
    """
    with _reading(path):
        data = path.read_bytes()
        if not data:
            raise ImageError(path, "the file is empty")
        image = Image.open(io.BytesIO(data))
        if image.mode in _DEEP_MODES:
            raise ImageError(
                path, f"16-bit and float images (here mode {image.mode}) are not supported yet: convert it to 8 bit"
            )
        return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the file's header alone.

    Raises:
        ImageError: there is no such file, or its header cannot be read.
    """
    with _reading(path), path.open("rb") as file:
        return Image.open(file).size


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as cause:
        raise ImageError(path, "the file does not exist") from cause
    except UnidentifiedImageError as cause:
        raise ImageError(path, "not an image, or of a format that Pillow cannot read") from cause
    except Exception as cause:  # Pillow's decoders raise nearly any type on a broken file
        raise ImageError(path, cause) from cause
