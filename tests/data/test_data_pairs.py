"""Pairs: twins under any suffix, and what is missing or of another size is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.data import build_index, check_pairs, make
from dinov2_noise.errors import MissingFolderError, PairError

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
