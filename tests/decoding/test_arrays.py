"""NPY and FITS: every layout that is clear, and one error for each that is not."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers import run_python
from instrument_files import write_fits

from dinov2_noise.data.pairs import find_twin
from dinov2_noise.decoding import decode_pixels, decode_size, image_size, load_pixels, load_rgb, parse_range
from dinov2_noise.errors import ImageError
from dinov2_noise.files import list_images

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (24, 40, 3), dtype=np.uint16)
EIGHT = (DEEP >> 8).astype(np.uint8)


def _repeated(gray):
    return np.repeat(gray[..., None], 3, axis=2)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (DEEP[..., 0], _repeated(DEEP[..., 0])),
        (DEEP[..., :1], _repeated(DEEP[..., 0])),
        (DEEP, DEEP),
        (np.moveaxis(DEEP, 2, 0), DEEP),
        (np.moveaxis(DEEP[..., :1], 2, 0), _repeated(DEEP[..., 0])),
        (DEEP.astype(">u2"), DEEP),
    ],
    ids=["HW", "HW1", "HW3", "3HW", "1HW", "big-endian"],
)
def test_npy_layouts(tmp_path, array, expected, order):
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.npy"), expected / 65535)
    assert image_size(tmp_path / "a.npy") == (40, 24)


def test_npy_of_8_bits_keeps_its_bytes(tmp_path):
    np.save(tmp_path / "a.npy", EIGHT)
    made = load_pixels(tmp_path / "a.npy")
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, EIGHT)
    np.testing.assert_array_equal(np.asarray(load_rgb(tmp_path / "a.npy")), EIGHT)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 40, 3)), r"\(3, 40, 3\) can be read as channels first or channels last"),
        (np.zeros((24, 40, 4)), r"its shape is \(24, 40, 4\): an image is \(height, width\)"),
        (np.zeros((2, 24, 40)), r"its shape is \(2, 24, 40\)"),
        (np.zeros((2, 24, 40, 3)), r"its shape is \(2, 24, 40, 3\)"),
        (np.zeros(40), r"its shape is \(40,\)"),
        (np.float32(1), r"its shape is \(\)"),
        (np.zeros((0, 40)), "no pixels"),
        (np.zeros((4, 4), complex), "complex128, not real numbers"),
        (np.zeros((4, 4), "U3"), "<U3, not real numbers"),
        (np.zeros((4, 4), [("a", int)]), "not real numbers"),
        (np.array([[{}, 1]], dtype=object), "allow_pickle=False"),
    ],
    ids=[
        "ambiguous",
        "4-channels",
        "2-planes",
        "4-axes",
        "1-axis",
        "scalar",
        "empty",
        "complex",
        "text",
        "rows",
        "objects",
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=rf"a\.npy: .*{message}"):
        load_pixels(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.fits", "a.fits.gz", "a.dcm"])
def test_what_is_none_of_its_kind_is_named(tmp_path, name):
    for content in (b"", b"no", b"nothing of the kind " * 20):
        (tmp_path / name).write_bytes(content)
        for read in (load_pixels, image_size):
            with pytest.raises(ImageError, match=rf"cannot use image .*{name}: ."):
                read(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">f4", ">f8"])
@pytest.mark.parametrize("is_zipped", [False, True])
@pytest.mark.parametrize("in_extension", [False, True])
def test_fits_frames(tmp_path, dtype, is_zipped, in_extension):
    white = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    array = (RNG.random((24, 40)) * white).astype(dtype)
    path = tmp_path / ("a.fits.gz" if is_zipped else "a.fit")
    write_fits(path, array, in_extension=in_extension)
    made = load_pixels(path)
    assert made.dtype == (np.uint8 if dtype == np.uint8 else np.float64)
    np.testing.assert_array_equal(made / (255 if made.dtype == np.uint8 else 1), _repeated(array.astype(float)) / white)
    assert image_size(path) == (40, 24)
    assert decode_size(path.read_bytes(), path) == (40, 24)


def test_fits_planes_are_channels(tmp_path):
    write_fits(tmp_path / "a.fits", np.moveaxis(DEEP, 2, 0))
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.fits"), DEEP / 65535)
    write_fits(tmp_path / "b.fits", DEEP[..., 0][np.newaxis, np.newaxis])  # as radio telescopes write
    np.testing.assert_array_equal(load_pixels(tmp_path / "b.fits"), _repeated(DEEP[..., 0]) / 65535)
    write_fits(tmp_path / "c.fits", np.zeros((7, 24, 40), np.float32))
    with pytest.raises(ImageError, match=r"c\.fits: its shape is \(7, 24, 40\).*write each plane of a cube as a file"):
        load_pixels(tmp_path / "c.fits")


def test_fits_scaling_blanks_and_nan(tmp_path):
    counts = RNG.integers(0, 200, (24, 40)).astype(np.int16)
    counts[2, 3] = -5
    write_fits(tmp_path / "scaled.fits", counts, BSCALE=0.5, BZERO=10, BLANK=-5)
    expected = counts * 0.5 + 10
    expected[2, 3] = 0
    made = load_pixels(tmp_path / "scaled.fits", parse_range("fixed:0,110"))
    np.testing.assert_allclose(made[..., 0], expected / 110, rtol=0, atol=1e-6)
    unsigned = counts.astype(np.uint16)
    write_fits(tmp_path / "unsigned.fits", unsigned, BLANK=int(unsigned[2, 3]) - 32768)
    made = load_pixels(tmp_path / "unsigned.fits", parse_range("percentile:0,100"))[..., 0]
    assert made[2, 3] == 0
    assert made.max() == 1  # the blank, 65531, is no part of the percentiles
    np.testing.assert_array_equal(
        load_pixels(tmp_path / "unsigned.fits") == 0, _repeated((counts == -5) | (counts == 0))
    )
    frame = counts.astype(np.float32)
    frame[0] = np.nan
    write_fits(tmp_path / "nan.fits", frame)
    assert not load_pixels(tmp_path / "nan.fits", parse_range("asinh"))[0].any()


def test_fits_compressed_inside(tmp_path):
    array = RNG.integers(0, 30000, (24, 40)).astype(np.int16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(array, compression_type="RICE_1")]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.fits", parse_range("fixed:0,30000"))[..., 0], array / 30000)
    assert image_size(tmp_path / "a.fits") == (40, 24)


def test_fits_without_an_image(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column(name="x", format="E", array=np.arange(5))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    write_fits(tmp_path / "spectrum.fits", np.arange(50, dtype=np.float32))
    for name in ("table.fits", "spectrum.fits"):
        with pytest.raises(ImageError, match=rf"{name}: none of its \d HDUs holds an image"):
            load_pixels(tmp_path / name)


@pytest.mark.parametrize("is_zipped", [False, True])
@pytest.mark.filterwarnings("ignore")  # astropy warns, too
def test_every_cut_of_a_fits_file_is_an_error(is_zipped):
    file = io.BytesIO()
    fits.PrimaryHDU(DEEP[..., 0]).writeto(file)
    whole = file.getvalue()[: 2880 + 2 * 24 * 40]
    name = f"cut.fits{'.gz' if is_zipped else ''}"
    whole = gzip.compress(whole) if is_zipped else whole
    for length in range(0, len(whole) - 1, 97):
        with pytest.raises(ImageError, match=name):
            decode_pixels(whole[:length], Path(name))


def test_arrays_are_listed_as_images_and_imagenets_metadata_are_not(tmp_path):
    metadata = ["entries-TRAIN.npy", "class-ids-VAL.npy", "class-names-TEST.npy", "paths-TRAIN.npy"]
    images = ["a.DCM", "a.FITS.gz", "b.npy", "entries-.npy", "c.fit", "d.fts", "e.dicom", "f.NPY"]
    for name in [*metadata, *images, "list.txt", "g.gz", "h.npz"]:
        (tmp_path / name).touch()
    assert list_images(tmp_path) == sorted(images)
    assert find_twin(tmp_path, "a.FITS.gz") == "a.FITS.gz"
    assert find_twin(tmp_path, "b.fits") == "b.npy"


@pytest.mark.parametrize(("name", "library"), [("a.fits", "astropy"), ("a.dcm", "pydicom")])
def test_a_missing_library_is_named_with_its_extra(tmp_path, name, library):
    write_fits(tmp_path / "a.fits", DEEP[..., 0])
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from pathlib import Path\nfrom dinov2_noise.decoding import image_size, load_rgb\n"
        "from dinov2_noise.errors import ImageError\n"
        "for read in (load_rgb, image_size):\n"
        "    try:\n        read(Path(sys.argv[1]))\n"
        "    except ImageError as error:\n        print(error)"
    )
    done = run_python("-c", code, str(tmp_path / name))
    extra = name.split(".")[1].replace("dcm", "dicom")
    assert [line.endswith(f"pip install 'dinov2-noise[{extra}]'") for line in done.stdout.splitlines()] == [True, True]
    assert done.stdout.count(str(tmp_path / name)) == 2
