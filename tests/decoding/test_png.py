"""PNG of 16 bits, every bit of it, against files of another writer and against rows written by hand."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dinov2_noise.decoding import image_size, load_pixels, load_rgb
from dinov2_noise.errors import ImageError

DEEP = np.random.default_rng(0).integers(0, 65536, (24, 40, 4), dtype=np.uint16)
SHAPES = {"gray": 1, "gray-alpha": 2, "rgb": 3, "rgb-alpha": 4}
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
STARTS = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7


def _expected(pixels):
    colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1].repeat(3, axis=2)
    return colours / 65535


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("is_smooth", [False, True], ids=["noise", "smooth"])  # encoders filter smooth rows otherwise
def test_16_bit_files_of_imagecodecs(tmp_path, kind, is_smooth):
    pixels = DEEP[..., : SHAPES[kind]]
    if is_smooth:
        pixels = np.cumsum(pixels // 4096, axis=1, dtype=np.uint16) * 7
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels.squeeze())))
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.png"), _expected(pixels))
    assert image_size(tmp_path / "a.png") == (40, 24)
    np.testing.assert_array_equal(np.asarray(load_rgb(tmp_path / "a.png")), np.rint(_expected(pixels) * 255))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("is_interlaced", [False, True], ids=["rows", "interlaced"])
def test_16_bit_files_written_by_hand(tmp_path, kind, is_interlaced):
    pixels = DEEP[..., : SHAPES[kind]]
    (tmp_path / "a.png").write_bytes(_png(pixels, is_interlaced))
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.png"), _expected(pixels))


def test_every_cut_of_a_deep_file_is_an_error(tmp_path):
    whole = _png(DEEP[..., :3], False)
    for length in range(8, len(whole) - 12, 311):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cut\.png"):
            load_pixels(tmp_path / "cut.png")


def test_a_damaged_header_or_body_is_an_error(tmp_path):
    whole = bytearray(_png(DEEP[..., :3], False))
    for place, value in ((25, 3), (25, 77), (len(whole) // 2, whole[len(whole) // 2] ^ 255)):
        damaged = whole.copy()
        damaged[place] = value
        (tmp_path / "bad.png").write_bytes(damaged)
        with pytest.raises(ImageError, match=r"bad\.png"):
            load_pixels(tmp_path / "bad.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_colours_are_as_pillow_reads_them(tmp_path, bits):
    picture = Image.new("P", (40, 24))
    picture.putdata((DEEP[..., 0] % 2**bits).ravel().tolist())
    picture.putpalette([7, 200, 30, 90, 1, 250, 17, 18, 19] * 5)
    picture.save(tmp_path / "a.png", bits=bits)
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.png"), expected)


@pytest.mark.upstream
def test_a_ramp_that_upstreams_decoder_turns_white(tmp_path):
    from dinov2.data.datasets.decoders import ImageDataDecoder

    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    theirs = np.asarray(ImageDataDecoder((tmp_path / "ramp.png").read_bytes()).decode())
    assert (theirs == 255).mean() > 0.99
    ours = load_pixels(tmp_path / "ramp.png")
    assert len(np.unique(ours)) == 65536
    assert (np.diff(ours[..., 0].ravel()) > 0).all()


def _png(pixels, is_interlaced):
    """The five filters in turn, one per row."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, int(is_interlaced))
    passes = [pixels[top::down, left::right] for top, left, down, right in STARTS] if is_interlaced else [pixels]
    body = b"".join(_filtered(part) for part in passes)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    for kind, content in chunks:
        check = zlib.crc32(kind + content)
        file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check))
    return file.getvalue()


def _filtered(pixels):
    height, _, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, made = 2 * channels, b""
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(step, int), line[:-step]]) for line in (row, above))
        guess = left + above - corner
        distances = np.abs(np.stack([left, above, corner]) - guess)
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        predicted = [np.zeros_like(row), left, above, (left + above) // 2, paeth]
        made += bytes([number % 5]) + ((row - predicted[number % 5]) % 256).astype(np.uint8).tobytes()
    return made
