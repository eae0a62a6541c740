"""DICOM against pydicom's own steps and the standard's formulas; files made by pydicom."""

import warnings

import numpy as np
import pydicom
import pytest
from instrument_files import write_dicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi_lut
from pydicom.uid import JPEGLSLossless, RLELossless

from dinov2_noise.decoding import image_size, load_pixels, load_rgb, parse_range
from dinov2_noise.errors import ImageError

RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 4096, (24, 40), dtype=np.uint16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}


def _pixels(folder, array=STORED, name="dtype", **elements):
    write_dicom(folder / "a.dcm", array, **elements)
    made = load_pixels(folder / "a.dcm", parse_range(name))
    assert image_size(folder / "a.dcm") == (40, 24)
    np.testing.assert_array_equal(made, made[..., :1].repeat(3, axis=2))
    return made[..., 0]


def test_the_dtype_range_is_that_of_the_bits_stored(tmp_path):
    np.testing.assert_array_equal(_pixels(tmp_path, bits=12), STORED / 4095)
    np.testing.assert_allclose(_pixels(tmp_path, bits=12, **CT), STORED / 4095, rtol=0, atol=1e-14)
    signed = STORED.astype(np.int16) - 2048
    np.testing.assert_array_equal(_pixels(tmp_path, signed, bits=12), STORED / 4095)
    np.testing.assert_allclose(_pixels(tmp_path, bits=12, RescaleSlope=-2, RescaleIntercept=7), 1 - STORED / 4095)


def test_8_bits_keep_their_bytes(tmp_path):
    eight = (STORED >> 4).astype(np.uint8)
    assert _pixels(tmp_path, eight).dtype == np.uint8
    np.testing.assert_array_equal(_pixels(tmp_path, eight), eight)
    np.testing.assert_array_equal(_pixels(tmp_path, eight, PhotometricInterpretation="MONOCHROME1"), 255 - eight)
    rgb = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
    write_dicom(tmp_path / "rgb.dcm", rgb)
    np.testing.assert_array_equal(np.asarray(load_rgb(tmp_path / "rgb.dcm")), rgb)


def test_fixed_ranges_are_in_hounsfield_units(tmp_path):
    made = _pixels(tmp_path, bits=12, name="fixed:-160,240", **CT)
    np.testing.assert_allclose(made, np.clip((STORED - 1024.0 + 160) / 400, 0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dtype", "fixed:100,3000", "percentile:1,99", "asinh", "window"])
def test_monochrome1_is_the_negative(tmp_path, name):
    window = {"WindowCenter": 2000, "WindowWidth": 1500}
    plain = _pixels(tmp_path, bits=12, name=name, **window)
    negative = _pixels(tmp_path, bits=12, name=name, PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_allclose(negative, 1 - plain, rtol=0, atol=1e-14)


def test_linear_windows_by_the_standards_formula(tmp_path):
    made = _pixels(tmp_path, bits=12, name="window", **CT)
    hounsfield, centre, width = STORED - 1024.0, 40, 400
    expected = (hounsfield - (centre - 0.5)) / (width - 1) + 0.5
    np.testing.assert_allclose(made, np.clip(expected, 0, 1), rtol=0, atol=1e-12)
    exact = _pixels(tmp_path, bits=12, name="window", VOILUTFunction="LINEAR_EXACT", **CT)
    np.testing.assert_allclose(exact, np.clip((hounsfield - centre) / width + 0.5, 0, 1), rtol=0, atol=1e-12)
    curve = _pixels(tmp_path, bits=12, name="window", VOILUTFunction="SIGMOID", **CT)
    np.testing.assert_allclose(curve, 1 / (1 + np.exp(-4 * (hounsfield - centre) / width)), rtol=0, atol=1e-12)


def test_of_several_windows_the_first_is_taken(tmp_path):
    several = CT | {"WindowCenter": [40, 600], "WindowWidth": [400, 2800]}
    first = _pixels(tmp_path, bits=12, name="window", **CT)
    np.testing.assert_array_equal(_pixels(tmp_path, bits=12, name="window", **several), first)


def test_tables_for_modality_and_view(tmp_path):
    modality, view = Dataset(), Dataset()
    modality.LUTDescriptor, modality.ModalityLUTType = [4096, 0, 16], "US"
    modality.LUTData = (3 * np.arange(4096, dtype=np.uint16)).tobytes()
    view.LUTDescriptor, view.LUTData = [12288, 0, 10], (np.arange(12288, dtype=np.uint16) // 12).tobytes()
    elements = {"ModalityLUTSequence": [modality], "VOILUTSequence": [view]}
    np.testing.assert_allclose(_pixels(tmp_path, bits=12, **elements), 3 * STORED / 65535, rtol=0, atol=1e-14)
    made = _pixels(tmp_path, bits=12, name="window", **elements)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    np.testing.assert_allclose(made, apply_voi_lut(3 * STORED, file) / 1023, rtol=0, atol=1e-14)
    np.testing.assert_allclose(made, (3 * STORED.astype(int) // 12) / 1023, rtol=0, atol=1e-14)


def test_padding_is_black_and_no_part_of_percentiles(tmp_path):
    array = STORED.astype(np.int16) // 2 + 100
    array[:, :5] = -2000
    for inverse in ("MONOCHROME2", "MONOCHROME1"):
        elements = {"PixelPaddingValue": -2000, "PhotometricInterpretation": inverse}
        made = _pixels(tmp_path, array, name="percentile:0,100", **elements)
        assert not made[:, :5].any()
        assert made[:, 5:].max() == 1
        assert made[:, 5:].min() == 0


def test_of_several_frames_the_first_with_what_is_said_of_it(tmp_path):
    frames = RNG.integers(0, 4096, (3, 24, 40), dtype=np.uint16)
    shared, rescale, window = Dataset(), Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -100
    window.WindowCenter, window.WindowWidth = 500, 1001
    shared.PixelValueTransformationSequence, shared.FrameVOILUTSequence = [rescale], [window]
    elements = {"NumberOfFrames": 3, "SharedFunctionalGroupsSequence": [shared]}
    made = _pixels(tmp_path, frames, bits=12, name="fixed:0,5000", **elements)
    np.testing.assert_allclose(made, np.clip((2.0 * frames[0] - 100) / 5000, 0, 1), rtol=0, atol=1e-12)
    made = _pixels(tmp_path, frames, bits=12, name="window", **elements)
    np.testing.assert_allclose(made, np.clip((2.0 * frames[0] - 100 - 499.5) / 1000 + 0.5, 0, 1), rtol=0, atol=1e-12)


def test_palettes(tmp_path):
    array = RNG.integers(0, 4, (24, 40), dtype=np.uint8)
    tables = np.array([[0, 65535, 32768, 257], [5, 6, 7, 8], [65535, 0, 1, 2]], dtype=np.uint16)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    write_dicom(tmp_path / "a.dcm", array, **elements)
    expected = tables[:, array].transpose(1, 2, 0) / 65535
    np.testing.assert_allclose(load_pixels(tmp_path / "a.dcm"), expected, rtol=0, atol=1e-14)


def test_compressed_files_are_read_or_name_what_is_missing(tmp_path):
    write_dicom(tmp_path / "a.dcm", STORED, bits=12)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    file.compress(RLELossless)
    file.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(load_pixels(tmp_path / "rle.dcm")[..., 0], STORED / 4095)
    file.file_meta.TransferSyntaxUID = JPEGLSLossless
    file.save_as(tmp_path / "jls.dcm")
    with pytest.raises(ImageError, match=r"jls\.dcm: .*missing dependencies.*pip install python-gdcm"):
        load_pixels(tmp_path / "jls.dcm")


def test_a_suffix_is_not_needed_and_an_image_is(tmp_path):
    write_dicom(tmp_path / "IM0001", STORED, bits=12)
    np.testing.assert_array_equal(load_pixels(tmp_path / "IM0001")[..., 0], STORED / 4095)
    file = pydicom.dcmread(tmp_path / "IM0001")
    del file.PixelData
    file.save_as(tmp_path / "report.dcm")
    with pytest.raises(ImageError, match=r"report\.dcm: it holds no image: it has no Pixel Data"):
        load_pixels(tmp_path / "report.dcm")


def test_every_cut_is_an_error(tmp_path):
    write_dicom(tmp_path / "a.dcm", STORED, bits=12)
    whole = (tmp_path / "a.dcm").read_bytes()
    for length in range(0, len(whole) - 1, 61):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ImageError, match=r"cut\.dcm"):
                load_pixels(tmp_path / "cut.dcm")
