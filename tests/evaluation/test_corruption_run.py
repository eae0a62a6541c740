"""Which cells there are, how they are kept, resumed and shared out, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dinov2_noise.data import make
from dinov2_noise.errors import ConfigError, MissingFolderError, NoiseNameError, OutputFolderError
from dinov2_noise.evaluation.corruption_cells import Grid, made_cells, split_name, stored_cells
from dinov2_noise.evaluation.corruption_run import CellFolder
from dinov2_noise.evaluation.counting import Count, LoaderSettings, count
from dinov2_noise.evaluation.identity import dataset_identity
from dinov2_noise.files import parse_shard, read_manifest

from .conftest import nearest_level, to_tensor

GRID = Grid(["brightness", "contrast"], [1, 5], ["gauss100"])


def _measure(names: Sequence[str]) -> Iterator[tuple[int, Count]]:
    return count(names, nearest_level, LoaderSettings(to_tensor, batch_size=12, workers=0), description="test")


def _folder(path: Path, dataset: str, **identity: Any) -> CellFolder:
    return CellFolder(path, {"weights": "abc", **identity}, made_cells(dataset, GRID, seed=42, size="full"))


def _counts(path: Path) -> dict[str, Any]:
    return {file.name: json.loads(file.read_text())["right"] for file in sorted((path / "cells").iterdir())}


def test_the_grid_is_in_the_benchmarks_order_whatever_was_typed() -> None:
    grid = Grid.parse("snow,fog,gaussian_noise,saturate", "5,1", "gauss255,gauss50,gauss255")
    assert grid.corruption_names()[::2] == ["gaussian_noise/1", "snow/1", "fog/1", "saturate/1"]
    assert grid.noises == ["gauss255", "gauss50"]
    assert len(Grid.parse("all", "1,2,3,4,5", "none").corruption_names()) == 95
    assert len(Grid.parse("standard", "1,2,3,4,5", "none").corruption_names()) == 75
    assert Grid.parse("none", "1", "none").corruption_names() == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("fogg", "1", "none"), "fog"), (("fog", "6", "none"), "6"), (("fog", "1", "gaus50"), "gaus50")],
)
def test_unknown_names_are_refused(arguments: tuple[str, str, str], named: str) -> None:
    with pytest.raises(NoiseNameError, match=named):
        Grid.parse(*arguments)


def test_cells_are_dataset_strings(gray_scale: Any) -> None:
    cells = made_cells(gray_scale.dataset, GRID, seed=7, size="224")
    assert [cell.name for cell in cells] == [
        *("clean", "gauss100", "brightness/1", "brightness/5", "contrast/1", "contrast/5")
    ]
    assert cells[1].dataset == f"{gray_scale.dataset}:noise=gauss100"
    assert cells[-1].dataset == f"{gray_scale.dataset}:corruption=contrast/5,seed=7,size=224"
    assert len(make(cells[-1].dataset)) == 12  # type: ignore[arg-type]
    assert [split_name(cell.name) for cell in cells[:3]] == [None, None, ("brightness", 1)]


@pytest.mark.parametrize("more", ["corruption=fog/1", "noise=gauss50"])
def test_the_clean_images_must_be_clean(gray_scale: Any, more: str) -> None:
    with pytest.raises(ConfigError, match=more.split("=")[0]):
        made_cells(f"{gray_scale.dataset}:{more}", GRID, seed=42, size="full")


def test_an_interrupted_run_goes_on_and_comes_out_the_same(tmp_path: Path, gray_scale: Any) -> None:
    whole = _folder(tmp_path / "whole", gray_scale.dataset)
    whole.open()
    assert whole.run(_measure) == 6

    def interrupted(names: Sequence[str]) -> Iterator[tuple[int, Count]]:
        for done, found in enumerate(_measure(names)):
            if done == 2:
                raise KeyboardInterrupt
            yield found

    stopped = _folder(tmp_path / "stopped", gray_scale.dataset)
    stopped.open()
    with pytest.raises(KeyboardInterrupt):
        stopped.run(interrupted)
    assert len(stopped.pending()) == 4
    again = _folder(tmp_path / "stopped", gray_scale.dataset)
    again.open()
    assert again.run(_measure) == 4
    assert again.is_complete()
    assert _counts(tmp_path / "stopped") == _counts(tmp_path / "whole")
    assert again.run(_measure) == 0


def test_shards_share_the_cells_and_meet_in_one_folder(tmp_path: Path, gray_scale: Any) -> None:
    shards = [_folder(tmp_path / "out", gray_scale.dataset) for _ in range(4)]
    done = []
    for number, shard in enumerate(shards, start=1):
        shard.open()
        done.append(shard.run(_measure, (number, 4)))
        assert shard.is_complete() == (number == 4)
    assert done == [2, 2, 1, 1]
    assert list(shards[0].results()) == [cell.name for cell in shards[0].cells]
    assert read_manifest(tmp_path / "out")["complete"] is False  # whoever sums up marks it


def test_a_folder_of_another_model_is_refused(tmp_path: Path, gray_scale: Any) -> None:
    _folder(tmp_path / "out", gray_scale.dataset).open()
    with pytest.raises(OutputFolderError, match="weights: there 'abc', now 'def'"):
        _folder(tmp_path / "out", gray_scale.dataset, weights="def").open()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3"])
def test_shards_are_i_of_n(text: str) -> None:
    assert parse_shard("2/3") == (2, 3)
    with pytest.raises(ConfigError, match="is not i/n"):
        parse_shard(text)


@pytest.fixture
def stored(tmp_path: Path, gray_scale: Any) -> Path:
    """Copies of the clean images as cells, in the arrangement of the official archives; brightness/5 is not there."""
    for name in ("brightness/1", "contrast/1", "contrast/5"):
        shutil.copytree(gray_scale.root / "val", tmp_path / "c" / name)
    return tmp_path / "c"


def test_missing_cells_are_listed_and_refused_unless_allowed(stored: Path, gray_scale: Any) -> None:
    (stored / "contrast/5/n3/2.png").unlink()
    with pytest.raises(MissingFolderError, match=r"brightness/5, contrast/5 \(11 of 12 images\)"):
        stored_cells(stored, gray_scale.dataset, GRID)
    cells, missing = stored_cells(stored, gray_scale.dataset, GRID, allow_missing=True)
    assert [cell.name for cell in cells] == ["clean", "gauss100", "brightness/1", "contrast/1"]
    assert missing == ["brightness/5", "contrast/5 (11 of 12 images)"]


def test_a_cell_of_other_classes_is_none(stored: Path, gray_scale: Any) -> None:
    (stored / "contrast/5/n3/2.png").rename(stored / "contrast/5/n0/3.png")
    with pytest.raises(MissingFolderError, match=r"contrast/5 \(as many images, but not of the same classes\)"):
        stored_cells(stored, gray_scale.dataset, GRID)


def test_stored_cells_need_clean_images_without_noise(stored: Path, gray_scale: Any) -> None:
    with pytest.raises(ConfigError, match="adds a noise"):
        stored_cells(stored, f"{gray_scale.dataset}:noise=gauss50", GRID, allow_missing=True)


def test_results_of_exchanged_images_are_refused(stored: Path, tmp_path: Path, gray_scale: Any) -> None:
    cells, _ = stored_cells(stored, gray_scale.dataset, GRID, allow_missing=True)
    folder = CellFolder(tmp_path / "out", {}, cells)
    folder.open()
    folder.run(_measure)
    folder.check()
    shutil.copy(stored / "contrast/1/n0/0.png", stored / "contrast/1/n3/0.png")
    with pytest.raises(OutputFolderError, match=r"1 cells, the first is contrast/1"):
        folder.check()


def test_stored_cells_have_the_classes_of_the_clean_set(stored: Path, tmp_path: Path, gray_scale: Any) -> None:
    cells, _ = stored_cells(stored, gray_scale.dataset, GRID, allow_missing=True)
    folder = CellFolder(tmp_path / "out", {}, cells)
    folder.open()
    folder.run(_measure)
    assert {name: result.right["level"] for name, result in folder.results().items() if "/" in name} == dict.fromkeys(
        ("brightness/1", "contrast/1", "contrast/5"), 12
    )


def test_identity_is_of_the_images_not_of_their_folders_name(tmp_path: Path, gray_scale: Any) -> None:
    shutil.copytree(gray_scale.root, tmp_path / "copy")
    shutil.copytree(f"{gray_scale.root}-extra", tmp_path / "copy-extra")
    copy = f"ImageNet:split=VAL:root={tmp_path / 'copy'}"
    assert dataset_identity(copy) == dataset_identity(gray_scale.dataset)
    fog = f"{copy}:corruption=fog/3,seed=1,size=full"
    assert dataset_identity(fog)["corruption"] == "fog/3,seed=1,size=full"
    (tmp_path / "copy/val/n0/0.png").write_bytes((tmp_path / "copy/val/n3/0.png").read_bytes())
    assert dataset_identity(copy) != dataset_identity(gray_scale.dataset)
