"""Files of noisy images: readable everywhere, without loss, the same bytes with and without zlib-ng."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.errors import ConfigError
from dinov2_noise.noise import encoding, noisy_uint8, parse
from dinov2_noise.noise.encoding import FORMATS, check_format, encode, encode_png


def _picture(height, width):
    rows, columns, channels = np.indices((height, width, 3))
    return (rows + 2 * columns + 30 * channels).astype(np.uint8)


def _noisy(name, height=60, width=83):
    return noisy_uint8(_picture(height, width), parse(name), relative_path="a.png")


PICTURES = {
    "no noise": _picture(40, 50),
    **{name: _noisy(name) for name in ("gauss2", "gauss255", "shot1", "saltpepper0.2")},
    **{f"{h}x{w}": _noisy("gauss5", h, w) for h, w in [(1, 1), (1, 9), (9, 1), (2, 2), (33, 5), (64, 64)]},
    "black": np.zeros((70, 70, 3), np.uint8),
}


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("name", PICTURES)
def test_pixels_come_back(name, image_format):
    data = encode(PICTURES[name], image_format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == image_format.upper()
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), PICTURES[name])
    assert encode(PICTURES[name], image_format) == data


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_is_what_the_specification_says(name):
    """Chunks with checksums, and the filters undone by a decoder of the test's own."""
    data, (height, width, _) = encode_png(PICTURES[name]), PICTURES[name].shape
    assert data[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    place, chunks = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        chunks.append((kind, content))
        place += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[0][1] == struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + 3 * width)
    decoded = np.zeros((height + 1, 3 * (width + 1)), int)
    for row in range(height):
        for column in range(3 * width):
            left, above = decoded[row + 1, column], decoded[row, column + 3]
            predicted = {0: 0, 3: (left + above) // 2}[int(rows[row, 0])]
            decoded[row + 1, column + 3] = (int(rows[row, 1 + column]) + predicted) % 256
    np.testing.assert_array_equal(decoded[1:, 3:].reshape(height, width, 3), PICTURES[name])


@pytest.mark.parametrize("name", ["gauss2", "gauss255", "33x5"])
def test_libpng_reads_it(name):
    imagecodecs = pytest.importorskip("imagecodecs")
    np.testing.assert_array_equal(imagecodecs.png_decode(encode_png(PICTURES[name])), PICTURES[name])


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_are_the_same_without_zlib_ng(name, monkeypatch):
    zlib_ng = pytest.importorskip("zlib_ng.zlib_ng")
    assert encoding._zlib() is zlib_ng
    data = encode_png(PICTURES[name])
    monkeypatch.setattr(encoding, "_zlib", lambda: zlib)
    assert encode_png(PICTURES[name]) == data


@pytest.mark.parametrize("name", ["gauss2", "gauss10", "gauss255", "shot3", "speckle1.0"])
def test_files_are_not_larger_than_pillows_fast_ones(name):
    """A natural picture: weak noise leaves something to predict, strong noise does not."""
    from skimage.data import chelsea

    pixels = noisy_uint8(chelsea()[:200, :250].copy(), parse(name), relative_path="a.png")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1, compress_type=2)
    assert len(encode_png(pixels)) < 1.03 * len(file.getvalue())


@pytest.mark.parametrize("lossy", ["jpg", "JPEG", ".jpg", "avif", "gif"])
def test_lossy_formats_are_refused_with_the_reason(lossy):
    with pytest.raises(ConfigError, match=r"does not keep noise.*2x2 pixels.*85 of 255.*png or webp"):
        check_format(lossy)


def test_formats():
    assert check_format("PNG") == check_format(".png") == "png"
    assert check_format("webp") == "webp"
    with pytest.raises(ConfigError, match="unknown format 'bmp': valid are png and webp"):
        encode(PICTURES["black"], "bmp")
