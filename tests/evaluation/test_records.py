"""Records: intervals against numbers worked out by hand, files there and back, provenance."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
from pathlib import Path

import pytest

from dinov2_noise import __version__
from dinov2_noise.errors import CheckpointError, MissingFolderError
from dinov2_noise.evaluation import records
from dinov2_noise.evaluation.records import Record


def record(value: float, n_images: int = 100) -> Record:
    return Record("nct", "knn_top1", value, n_images, 3, "ImageNet:split=VAL:root=R", {"k": 10}, {"torch": "2.13.0"})


@pytest.mark.parametrize(
    ("value", "n_images", "low", "high"),
    [
        (0.5, 100, 0.403832, 0.596168),  # half-width z/2 / sqrt(n + z²) = 0.979982 / sqrt(103.841459) = 0.0961689
        (0.1, 50, 0.0434758, 0.2136023),  # (0.1384146 ± 1.959964 sqrt(0.0021841459)) / 1.0768292
        (0.0, 10, 0.0, 0.2775328),  # z² / (n + z²) = 3.841459 / 13.841459
        (1.0, 10, 0.7224672, 1.0),
    ],
)
def test_wilson_interval_matches_hand_computed_numbers(value: float, n_images: int, low: float, high: float) -> None:
    assert record(value, n_images).interval() == pytest.approx((low, high), abs=1e-6)


def test_standard_error_is_binomial() -> None:
    assert record(0.2, 400).standard_error == pytest.approx(0.02)  # sqrt(0.16 / 400)


def test_interval_approaches_the_normal_one_for_many_images() -> None:
    many = record(0.3, 10**8)
    low, high = many.interval()
    assert (high - low) / 2 == pytest.approx(records.Z_95 * many.standard_error, rel=1e-6)


def test_save_and_load_give_the_same_record(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "nct_knn.json"
    record(0.25).save(path)
    assert Record.load(path) == record(0.25)
    assert json.loads(path.read_text(encoding="utf-8"))["details"] == {"k": 10}
    assert [file.name for file in path.parent.iterdir()] == ["nct_knn.json"]


@pytest.mark.parametrize(("value", "n_images"), [(45.1, 100), (-0.1, 100), (float("nan"), 100), (0.5, 0)])
def test_a_value_outside_of_its_range_is_refused(value: float, n_images: int) -> None:
    with pytest.raises(ValueError, match="nct/knn_top1"):
        record(value, n_images)


def test_loading_names_the_file_at_fault(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"absent\.json"):
        Record.load(tmp_path / "absent.json")
    path = tmp_path / "broken.json"
    good = {**record(0.25).__dict__}
    wrong_type, per_cent = {**good, "value": "high"}, {**good, "value": 25.0}
    for text in (
        "{",
        "[1]",
        '{"arm": "nct"}',
        json.dumps({**good, "extra": 1}),
        json.dumps(wrong_type),
        json.dumps(per_cent),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"broken\.json"):
            Record.load(path)


def test_an_interval_that_was_given_is_kept(tmp_path: Path) -> None:
    given = dataclasses.replace(record(0.25), metric="map", interval95=(0.2, 0.31))
    assert given.interval() == (0.2, 0.31)
    given.save(tmp_path / "map.json")
    assert Record.load(tmp_path / "map.json") == given
    for wrong in ((0.3, 0.2), (-0.1, 0.2), (0.2, 1.1), (float("nan"), 0.5)):
        with pytest.raises(ValueError, match="interval95"):
            dataclasses.replace(given, interval95=wrong)


def test_records_of_earlier_versions_load(tmp_path: Path) -> None:
    old = {**record(0.25).__dict__}
    del old["interval95"]
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    assert Record.load(tmp_path / "old.json") == record(0.25)


def test_versions_name_all_that_decides_a_result() -> None:
    found = records.versions()
    assert list(found) == ["python", "torch", "torchvision", "numpy", "dinov2-noise", "dinov2"]
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["dinov2-noise"] == __version__


def test_a_checkout_is_named_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checkout" / "dinov2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(records.importlib.util.sys.modules, "dinov2", raising=False)
    git = ["git", "-C", str(package.parent), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert records.versions()["dinov2"] == "checkout"  # the repository around it does not track it
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    kind, abbreviated = records.versions()["dinov2"].split(" ")
    assert kind == "checkout"
    assert commit.startswith(abbreviated)
