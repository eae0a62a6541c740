"""Masks: which belongs to which image, what they hold, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dinov2_noise.errors import ConfigError, ImageError, MetadataError, MissingFolderError
from dinov2_noise.evaluation.dense_images import Geometry, Scenes
from dinov2_noise.evaluation.dense_masks import class_names, find_labelled, read_mask, survey
from dinov2_noise.noise import noisy_uint8, parse

MASK = np.array([[0, 1, 2], [255, 1, 3]], np.uint8)


def _write(folder: Path, names: list[str], size: tuple[int, int] = (3, 2)) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)).save(folder / name)


def _mask(path: Path, values: np.ndarray[Any, Any] = MASK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_formats_hold_the_same_classes(tmp_path: Path) -> None:
    indexed = Image.fromarray(MASK)
    indexed.putpalette([7 * number % 256 for number in range(768)])
    indexed.save(tmp_path / "palette.png")
    Image.fromarray(MASK).save(tmp_path / "gray.png")
    Image.fromarray(MASK.astype(np.uint16)).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "gray.tif", MASK)
    tifffile.imwrite(tmp_path / "deep.tiff", MASK.astype(np.uint16))
    np.save(tmp_path / "array.npy", MASK.astype(np.int64))
    for path in sorted(tmp_path.iterdir()):
        assert read_mask(path).tolist() == MASK.tolist(), path.name
    Image.fromarray(MASK > 1).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.png", np.zeros((2, 3, 3), np.uint8), "it is RGB, not a mask of class indices"),
        ("a.npy", np.zeros((2, 3, 1), np.uint8), "whole numbers of shape"),
        ("a.npy", np.zeros((2, 3)), "this is float64"),
        ("a.npy", np.array([[0, -1]]), "it has the class -1"),
        ("a.npy", np.array([[{}]], dtype=object), "cannot use image"),
    ],
    ids=["colours", "axes", "floats", "negative", "objects"],
)
def test_what_is_no_mask_is_named(tmp_path: Path, name: str, values: np.ndarray[Any, Any], words: str) -> None:
    path = tmp_path / name
    np.save(path, values) if name.endswith("npy") else Image.fromarray(values).save(path)
    with pytest.raises(ImageError, match=words) as caught:
        read_mask(path)
    assert str(path) in str(caught.value)


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.png"):
        read_mask(tmp_path / "a.png")


def test_images_find_their_masks(tmp_path: Path) -> None:
    _write(tmp_path / "i", ["a.jpg", "b/c.d.png", "b/e.png"])
    for name in ("a.png", "b/c.d.png", "other.png"):
        _mask(tmp_path / "m" / name)
    np.save(tmp_path / "m/b/e.npy", MASK)
    found = find_labelled(tmp_path / "i", tmp_path / "m")
    assert [(one.relative_path, one.mask.name) for one in found] == [
        ("a.jpg", "a.png"),
        ("b/c.d.png", "c.d.png"),
        ("b/e.png", "e.npy"),
    ]
    (tmp_path / "list.txt").write_text("b/e\n\na.jpg\n b/e \n")
    assert [one.relative_path for one in find_labelled(tmp_path / "i", tmp_path / "m", tmp_path / "list.txt")] == [
        "b/e.png",
        "a.jpg",
    ]


def test_images_without_masks_are_counted(tmp_path: Path) -> None:
    _write(tmp_path / "i", [f"{number}.png" for number in range(9)])
    _mask(tmp_path / "m/0.png")
    with pytest.raises(MetadataError, match=r"8 of 9 images have no mask in .*m:\n  1\.png(.*\n)+.*and 3 more"):
        find_labelled(tmp_path / "i", tmp_path / "m")
    (tmp_path / "j").mkdir()
    for number in range(9):
        Image.fromarray(MASK).save(tmp_path / "j" / f"{number}.jpg")
    with pytest.raises(MetadataError, match="format that changes values"):
        find_labelled(tmp_path / "i", tmp_path / "j")
    with pytest.raises(MissingFolderError, match="mask folder"):
        find_labelled(tmp_path / "i", tmp_path / "nowhere")
    with pytest.raises(MissingFolderError, match="image folder"):
        find_labelled(tmp_path / "nowhere", tmp_path / "m")
    (tmp_path / "list.txt").write_text("0.png\nx.png\n")
    with pytest.raises(MetadataError, match=r"1 of 2 lines of .*list\.txt name no image"):
        find_labelled(tmp_path / "i", tmp_path / "m", tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(MetadataError, match="is empty"):
        find_labelled(tmp_path / "i", tmp_path / "m", tmp_path / "list.txt")


def test_a_survey_counts_pixels_and_finds_wrong_sizes(tmp_path: Path) -> None:
    _write(tmp_path / "i", ["a.png", "b.png"])
    _mask(tmp_path / "m/a.png")
    _mask(tmp_path / "m/b.png", np.zeros_like(MASK))
    found = find_labelled(tmp_path / "i", tmp_path / "m")
    counted = survey(found, 255, threads=2, description="test")
    assert counted.pixels.tolist() == [7, 2, 1, 1]
    assert counted.highest_in.name == "a.png"
    _mask(tmp_path / "m/b.png", np.zeros((3, 2), np.uint8))
    with pytest.raises(MetadataError, match=r"mask .*b\.png is 2x3 px, its image .*b\.png 3x2"):
        survey(found, 255, threads=2, description="test")
    for name in ("a", "b"):
        _mask(tmp_path / f"m/{name}.png", np.full_like(MASK, 255))
    with pytest.raises(MetadataError, match="no pixel of the 2 masks"):
        survey(found, 255, threads=2, description="test")


def test_classes_beyond_those_known_are_named(tmp_path: Path) -> None:
    _write(tmp_path / "i", ["a.png"])
    _mask(tmp_path / "m/a.png")
    found = find_labelled(tmp_path / "i", tmp_path / "m")
    high, void = (survey(found, ignore, threads=1, description="test") for ignore in (255, None))
    _mask(tmp_path / "m/a.png", np.zeros_like(MASK))
    low = survey(found, 255, threads=1, description="test")
    assert class_names(None, high, low, 255) == ["0", "1", "2", "3"]
    with pytest.raises(MetadataError, match=r"mask .*a\.png has the class 3: the training masks go up to 0 only"):
        class_names(None, low, high, 255)
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\n")
    with pytest.raises(MetadataError, match=r"class 3: .*names\.txt names 3, from 0 to 2; the ignored value is 255"):
        class_names(tmp_path / "names.txt", high, low, 255)
    with pytest.raises(MetadataError, match=r"has the class 255: .*no value is ignored"):
        class_names(tmp_path / "names.txt", void, low, None)
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\ntree\nsea\n")
    assert class_names(tmp_path / "names.txt", high, low, 255)[4] == "sea"
    (tmp_path / "names.txt").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        class_names(tmp_path / "names.txt", high, low, 255)
    with pytest.raises(ConfigError, match="cannot be read"):
        class_names(tmp_path / "nowhere.txt", high, low, 255)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((640, 480), (304, 224)), ((480, 640), (224, 304)), ((100, 100), (224, 224)), ((2000, 16), (28000, 224))],
    ids=str,
)
def test_sides_are_multiples_of_a_patch(size: tuple[int, int], shown: tuple[int, int]) -> None:
    geometry = Geometry(224, 16)
    assert geometry.shown(size) == shown  # 640 / 480 of 224 is 298.7, nearest to 19 patches
    assert geometry.grid(size) == (shown[1] // 16, shown[0] // 16)
    assert Geometry(100, 14).shown((100, 100)) == (98, 98)
    assert Geometry(5, 16).shown((100, 100)) == (16, 16)


def test_noise_is_added_before_images_are_resized(tmp_path: Path) -> None:
    _write(tmp_path / "i", ["sub/a.png"], (24, 16))
    _mask(tmp_path / "m/sub/a.png", np.ones((16, 24), np.uint8))
    labelled = find_labelled(tmp_path / "i", tmp_path / "m")
    scene = Scenes(labelled, Geometry(32, 16), parse("gauss50"), seed=7)[0]
    clean = np.asarray(Image.open(tmp_path / "i/sub/a.png"))
    noisy = noisy_uint8(clean, parse("gauss50"), relative_path="sub/a.png", base_seed=7)
    expected = np.asarray(Image.fromarray(noisy).resize((48, 32), Image.Resampling.BICUBIC))
    assert scene.image.shape == (3, 32, 48)
    assert (scene.image * 255).round().permute(1, 2, 0).numpy() == pytest.approx(expected, abs=0)
    x, y = clean / 255, noisy / 255
    assert scene.snr_db == pytest.approx(10 * np.log10((x**2).mean() / ((y - x) ** 2).mean()), abs=1e-9)
    assert np.isnan(Scenes(labelled, Geometry(32, 16))[0].snr_db)


def test_only_images_of_one_size_go_together(tmp_path: Path) -> None:
    for number, size in enumerate([(24, 16), (16, 24), (24, 16), (23, 16), (24, 16)]):
        _write(tmp_path / "i", [f"{number}.png"], size)
        _mask(tmp_path / f"m/{number}.png", np.zeros(size[::-1], np.uint8))
    scenes = Scenes(find_labelled(tmp_path / "i", tmp_path / "m"), Geometry(32, 16))
    assert scenes.batches(3) == [[0, 2, 3], [4], [1]]
