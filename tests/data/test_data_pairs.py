"""Pairs: twins under any suffix, and what is missing or of another size is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.data import build_index, check_pairs, make
from dinov2_noise.data.listing import walk
from dinov2_noise.data.pairs import check_range, find_twin, is_vouched_for
from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import MissingFolderError, PairError
from dinov2_noise.files import list_images

NAMES = [f"train/{c}/{c}_{number}.v2.jpg" for c in "ab" for number in range(4)]


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    noisy, denoised = tmp_path / "noisy", tmp_path / "denoised"
    for number, name in enumerate(NAMES):
        for folder, value in ((noisy, number), (denoised, 100 + number)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save((folder / name).with_suffix(".png"))
    build_index(noisy, progress=False)
    return noisy, denoised


def _texts(roots: tuple[Path, Path]) -> list[str]:
    noisy, denoised = roots
    return [f"ImageNet:split=TRAIN:root={noisy}:denoised={denoised}", f"ImageFolder:root={noisy}:denoised={denoised}"]


def test_pairs_belong_together(roots):
    for text in _texts(roots):
        dataset = make(text)
        for index in range(len(NAMES)):
            assert np.unique(dataset.noisy(index)) == [index]
            assert np.unique(dataset.denoised(index)) == [100 + index]
            assert np.unique(dataset[index][0]) == [index]


def test_on_the_fly_noise_does_not_touch_the_denoised_view(roots):
    dataset = make(f"{_texts(roots)[0]}:noise=gauss255")
    assert np.unique(dataset.denoised(3)) == [103]
    assert np.unique(dataset.noisy(3)).size > 50


def test_twin_may_have_any_suffix_and_png_comes_first(roots):
    twin = roots[1] / NAMES[0]
    Image.new("RGB", (10, 8), (7, 7, 7)).save(twin.with_suffix(".bmp"))
    dataset = make(_texts(roots)[0])
    assert np.unique(dataset.denoised(0)) == [100]
    twin.with_suffix(".png").unlink()
    assert np.unique(dataset.denoised(0)) == [7]
    assert np.unique(make(_texts(roots)[1]).denoised(0)) == [7]


def test_missing_twins_are_counted_and_five_named_at_once(roots):
    for name in NAMES[:6]:
        (roots[1] / name).with_suffix(".png").unlink()
    for text in _texts(roots):
        with pytest.raises(PairError, match="6 of 8 images have no denoised twin") as caught:
            make(text)
        assert [name.replace(".jpg", "") in str(caught.value) for name in NAMES] == [True] * 5 + [False] * 3


def test_twin_that_vanishes_later_is_named(roots):
    dataset = make(_texts(roots)[0])
    (roots[1] / NAMES[2]).with_suffix(".png").unlink()
    with pytest.raises(PairError, match=r"a_2\.v2"):
        dataset.denoised(2)


def test_sizes_that_differ_are_named_with_both_files(roots):
    twin = (roots[1] / NAMES[1]).with_suffix(".png")
    Image.new("RGB", (20, 16)).save(twin)
    with pytest.raises(PairError, match=r"is 10x8 px.*is 20x16 px") as caught:
        make(_texts(roots)[0]).denoised(1)
    assert str(twin) in str(caught.value)
    assert str((roots[0] / NAMES[1]).with_suffix(".png")) in str(caught.value)


def test_missing_denoised_root(roots, tmp_path):
    with pytest.raises(MissingFolderError, match="denoised folder"):
        make(f"ImageFolder:root={roots[0]}:denoised={tmp_path}/nowhere")


def test_extra_twins_do_no_harm(roots):
    check_pairs(NAMES[:3], roots[1])
    with pytest.raises(PairError, match="1 of 2 images"):
        check_pairs([NAMES[0], "train/a/a_0.png"], roots[1])


@pytest.mark.parametrize("count", [None, 2, 10**6])
def test_a_look_at_each_and_a_walk_through_all_find_the_same(roots, count):
    names = [*NAMES, "train/a/a_9.png", "train/c/a_0.png"]
    with pytest.raises(PairError, match=rf"2 of {count if count == 2 else 10} images.*\n  train/a/a_9.png\n  train/c"):
        check_pairs(names, roots[1], count=count)
    (roots[1] / "stray.png").write_bytes(b"")
    (roots[1] / "train/a/deep").mkdir()
    (roots[1] / "train/empty").mkdir()
    (roots[1] / "train/a/deep/1.PNG").write_bytes(b"")
    (roots[1] / "train/a/.hidden.png").write_bytes(b"")
    check_pairs(["stray.tif", "train/a/deep/1.png", *NAMES], roots[1], count=count)
    assert sorted(path for paths in walk(roots[1]) for path in paths) == list_images(roots[1])


def test_a_denoised_folder_that_is_empty_or_missing(roots, tmp_path):
    (tmp_path / "empty").mkdir()
    for count in (None, len(NAMES)):
        with pytest.raises(MissingFolderError, match="holds no images"):
            check_pairs(NAMES, tmp_path / "empty", count=count)
        with pytest.raises(MissingFolderError, match="does not exist"):
            check_pairs(NAMES, tmp_path / "nowhere", count=count)


@pytest.mark.parametrize(
    ("changed", "facts", "trusted"),
    [
        ({}, {}, True),
        ({"source": "/elsewhere", "source_parameters": {"source": "ROOT"}}, {}, True),
        ({"source": "/elsewhere"}, {}, False),
        ({}, {"images": 7}, False),
        ({}, {"skipped": ["a"]}, False),
        ({}, {"complete": False}, False),
        ({}, {"command": "something else"}, False),
    ],
)
def test_when_a_manifest_is_believed(roots, changed, facts, trusted):
    noisy, denoised = roots
    parameters = {"source": str(noisy.resolve()), **changed}
    if "source_parameters" in changed:
        parameters["source_parameters"] = {"source": str(noisy.resolve())}
    manifest = {"command": "denoise apply", "parameters": parameters, "complete": True, "images": 8, **facts}
    (denoised / "manifest.json").write_text(json.dumps(manifest))
    listed = [Path(name).with_suffix(".png").as_posix() for name in NAMES]
    assert is_vouched_for(denoised, noisy, len(NAMES), listed.__getitem__) == trusted
    (denoised / listed[3]).unlink()
    assert not is_vouched_for(denoised, noisy, len(NAMES), listed.__getitem__)
    with pytest.raises(PairError, match="1 of 8 images"):
        make(f"ImageFolder:root={noisy}:denoised={denoised}")


def test_a_manifest_of_somebody_else_is_passed_over(roots):
    (roots[1] / "manifest.json").write_text("[1, 2")
    make(_texts(roots)[0])


@pytest.mark.parametrize("suffix", [".PNG", ".WEBP", ".BMP", ".TIFF", ".JPEG"])
def test_twins_may_have_suffixes_in_capitals(tmp_path, suffix):
    Image.new("RGB", (8, 8)).save(tmp_path / f"1{suffix}")
    assert find_twin(tmp_path, "1.jpg") == f"1{suffix}"


def test_of_twins_that_others_made_no_range_is_known(tmp_path):
    check_range(parse_range("fixed:0,4095"), tmp_path, tmp_path)
    manifest = {"command": "denoise apply", "parameters": {"source": str(tmp_path), "range": "fixed:0,4095"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    check_range(parse_range("fixed:0,4095"), tmp_path, tmp_path)
    with pytest.raises(PairError, match=r"range dtype, and .* was made with fixed:0,4095"):
        check_range(parse_range("dtype"), tmp_path, tmp_path)
