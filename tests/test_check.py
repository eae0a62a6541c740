"""The command `check`: what is in a folder, what cannot be read, and whether the noise suits the denoiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import SmallSet, run_python
from PIL import Image, ImageFilter

from dinov2_noise.check import check_folder
from dinov2_noise.errors import MissingFolderError
from dinov2_noise.files import list_images


def _text(folder: Path) -> dict[str, str]:
    return dict(check_folder(folder, workers=1, progress=False).lines())


def test_noisy_folder(small_set: SmallSet) -> None:
    found = check_folder(small_set.noisy, workers=1, progress=False)
    assert found.good
    assert found.noise is not None
    # gauss100 has 75 at mid-gray and less near black and white, where more is clipped.
    assert 60 < found.noise.sigma_255 < 80
    assert _text(small_set.noisy)["images"] == f"30 in {small_set.noisy}"
    assert _text(small_set.noisy)["sizes"] == "sides from 64 to 64 px, most often 64x64 (30 images)"
    assert _text(small_set.noisy)["verdict"].startswith("independent")


def test_blurred_folder_is_good_with_a_warning(small_set: SmallSet, tmp_path: Path) -> None:
    for name in list_images(small_set.noisy):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(small_set.noisy / name).filter(ImageFilter.GaussianBlur(0.7)).save(tmp_path / name)
    assert check_folder(tmp_path, workers=1, progress=False).good
    verdict = _text(tmp_path)["verdict"]
    assert verdict.startswith("correlated; warning: the noise is correlated between pixels")
    assert "--stride 2" in verdict


def test_unreadable_files_are_named_and_the_status_is_1(small_set: SmallSet, tmp_path: Path) -> None:
    names = list_images(small_set.noisy)[:4]
    for name in names:
        (tmp_path / Path(name).name).write_bytes((small_set.noisy / name).read_bytes())
    broken = tmp_path / Path(names[1]).name
    broken.write_bytes(broken.read_bytes()[:-2000])  # the header is whole
    (tmp_path / "empty.jpg").touch()
    done = run_python("-m", "dinov2_noise", "check", str(tmp_path), "--workers", "1")
    assert done.returncode == 1
    assert "unreadable      2\n" in done.stdout
    assert f"{broken}: " in done.stdout
    assert f"{tmp_path / 'empty.jpg'}: the file is empty" in done.stdout
    assert "(3 images)" in done.stdout


def test_nothing_readable_and_small_images(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"text")
    found = check_folder(tmp_path / "bad", workers=1, progress=False)
    assert (found.good, found.noise) == (False, None)
    assert set(dict(found.lines())) == {"images", "unreadable"}
    (tmp_path / "small").mkdir()
    for side in (63, 64):
        Image.fromarray(np.zeros((side, 80, 3), np.uint8)).save(tmp_path / "small" / f"{side}.png")
    text = _text(tmp_path / "small")
    assert text["sizes"].endswith("; below 64 px, too small to train on: 1")
    assert text["verdict"].startswith("unclear")


def test_no_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match="holds no images"):
        check_folder(tmp_path)
