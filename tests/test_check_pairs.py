"""The command `check` on folders that should pair."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import SmallSet
from PIL import Image

from dinov2_noise.check import Findings, check, record, report_lines
from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import ConfigError, MissingFolderError
from dinov2_noise.files import MANIFEST_NAME, list_images


def looked(data: str | Path, **options: Any) -> Findings:
    return check(data, workers=1, progress=False, **options)


def line(found: Findings, word: str) -> str:
    return dict(report_lines(found))[word]


@pytest.fixture
def twins(small_set: SmallSet, tmp_path: Path) -> Path:
    """A denoised folder, with the manifest of `denoise apply`."""
    shutil.copytree(small_set.denoised, tmp_path / "denoised")
    noisy = json.loads((small_set.noisy / MANIFEST_NAME).read_text(encoding="utf-8"))
    write_manifest(
        tmp_path / "denoised",
        source=str(small_set.noisy.resolve()),
        source_parameters=noisy["parameters"],
        weights_sha256="ab" * 32,
    )
    return tmp_path / "denoised"


def write_manifest(folder: Path, *, complete: bool = True, **parameters: Any) -> None:
    content = {"command": "denoise apply", "parameters": parameters, "complete": complete, "images": 30}
    (folder / MANIFEST_NAME).write_text(json.dumps(content), encoding="utf-8")


def test_all_twins_are_there(small_set: SmallSet, twins: Path) -> None:
    found = looked(small_set.noisy, denoised=twins)
    assert found.good
    assert line(found, "denoised") == f"30 pairs with {twins}; weights abababababab"
    good = [text for _, text in report_lines(found)]
    assert "every image has its denoised twin, of its size" in good
    string = f"ImageFolder:root={small_set.noisy}:denoised={twins}"
    assert f"dinov2-noise train nct --output RUN train.dataset_path={string}" in good
    again = looked(string)
    assert again.denoised == found.denoised
    of_split = looked(f"ImageNet:split=VAL:root={small_set.noisy}:denoised={twins}")
    assert of_split.denoised is not None
    assert (of_split.denoised.pairs, of_split.denoised.extra) == (10, 0)


def test_missing_extra_and_unlike_twins(small_set: SmallSet, twins: Path) -> None:
    names = list_images(twins)
    (twins / names[0]).unlink()
    (twins / names[1]).rename(twins / "train" / "other.png")
    Image.open(twins / names[2]).resize((32, 64)).save(twins / names[2])
    (twins / names[3]).write_bytes(b"no image")
    found = looked(small_set.noisy, denoised=twins)
    assert not found.good
    text = line(found, "denoised").splitlines()
    assert text[0].startswith(f"28 pairs with {twins}; 2 missing; 2 of another size or unreadable; 1 extra; weights")
    assert text[1:4] == [f"  missing: {names[0]}", f"  missing: {names[1]}", "  extra: train/other.png"]
    assert text[4] == f"  unlike: {names[2]} has 64x64 px, {names[2]} has 32x64"
    assert text[5].startswith(f"  unlike: {names[3]}: not an image")
    lines = report_lines(found)
    assert lines[0] == ("verdict", "NOT READY: the images do not pair")
    mend = record(found)["mend"]
    assert mend[0].startswith("denoised folder: 2 images without twin")
    assert mend[1].startswith("denoised folder: 2 twins of another size or unreadable")
    assert json.loads(json.dumps(record(found)))["denoised"]["missing"] == 2


def test_a_folder_of_other_noise_range_or_weights(small_set: SmallSet, twins: Path, tmp_path: Path) -> None:
    (tmp_path / "denoiser.pth").write_bytes(b"weights")
    write_manifest(twins, complete=False, source_parameters={"noise": "gauss50", "seed": 42}, weights_sha256="cd" * 32)
    found = looked(small_set.noisy, denoised=twins, weights=tmp_path / "denoiser.pth")
    assert found.denoised is not None
    assert found.denoised.faults == [
        "it is not complete: run the same `dinov2-noise denoise apply` again",
        "it was made from images with noise gauss50, and here it is gauss100",
        f"it was made with other weights than {tmp_path / 'denoiser.pth'}",
    ]
    assert not found.good
    on_the_fly = looked(f"ImageFolder:root={small_set.clean}:noise=gauss50,seed=7", denoised=twins).denoised
    assert on_the_fly is not None
    assert on_the_fly.faults[1:] == ["it was made from images with seed 42, and here it is 7"]
    stretched = looked(small_set.noisy, denoised=twins, values=parse_range("percentile:1,99")).denoised
    assert stretched is not None
    assert f"read with range percentile:1,99, and {twins} was made with dtype" in stretched.faults[1]


def test_folders_of_somebody_else_have_no_manifest(small_set: SmallSet) -> None:
    found = looked(small_set.noisy, denoised=small_set.denoised)
    assert found.good
    assert line(found, "denoised").endswith("no manifest of `denoise apply`: what made it is not known")


def test_clean_twins_by_stem(small_set: SmallSet) -> None:
    found = looked(small_set.noisy, clean=small_set.clean)
    assert line(found, "clean") == f"30 pairs with {small_set.clean}"  # .JPEG beside .png
    assert line(found, "bias").endswith("from the clean images, exact)")


def test_twins_that_cannot_be_compared(small_set: SmallSet, tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"denoised folder .*none does not exist"):
        looked(small_set.noisy, denoised=tmp_path / "none")
    with pytest.raises(ConfigError, match="give --denoised, too"):
        looked(small_set.noisy, weights=tmp_path / "denoiser.pth")
    with pytest.raises(MissingFolderError, match=r"weights .* do not exist"):
        looked(small_set.noisy, denoised=_with_manifest(small_set, tmp_path), weights=tmp_path / "none.pth")


def _with_manifest(small_set: SmallSet, tmp_path: Path) -> Path:
    shutil.copytree(small_set.denoised, tmp_path / "d")
    write_manifest(tmp_path / "d")
    return tmp_path / "d"
