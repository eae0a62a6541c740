"""One model's summary as files, and several side by side."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dinov2_noise.errors import CheckpointError, ConfigError, MissingFolderError
from dinov2_noise.evaluation.corruption_cells import CellResult
from dinov2_noise.evaluation.corruption_compare import accuracies, difference, load_models, markdown, rows_of, save
from dinov2_noise.evaluation.corruption_summary import Summary
from dinov2_noise.noise.corruptions import CORRUPTIONS, SEVERITIES


def _cell(name: str, right: int) -> CellResult:
    return CellResult(name, f"D:{name}", {"hash": name}, 50, {"linear": right, "knn20": 50 - right}, 0.5, 1.5, {})


def _summary(model: str, right: int, **changes: object) -> Summary:
    """40 of 50 clean images right, ``right`` in every cell of the 15 and with noise."""
    names = ["gauss100", *(f"{name}/{severity}" for name in CORRUPTIONS for severity in SEVERITIES)]
    cells = {"clean": _cell("clean", 40), **{name: _cell(name, right) for name in names}}
    identity = {"weights": model, "geometry": "upstream", "corruptions": {"made": True}}
    return replace(Summary(model, identity, cells, n_classes=12), **changes)  # type: ignore[arg-type]


def test_a_summary_says_what_its_numbers_are(tmp_path: Path) -> None:
    _summary("nct", 25).save(tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    scores = content["scores"]["linear"]
    assert (scores["clean_accuracy"], scores["mean_accuracy"]) == pytest.approx((0.8, 0.5))
    assert scores["mce_percent"] == pytest.approx(64.67, abs=0.005)
    assert scores["accuracy_at_severity"] == pytest.approx(dict.fromkeys("12345", 0.5))
    assert content["seconds"] == {"waiting": 38.5, "computing": 115.5}
    assert "not with published figures" in content["normalised_by"]
    assert "not with" not in replace(_summary("nct", 25), n_classes=1000).normalised_by
    low, high = content["cells"]["fog/3"]["linear"]["interval_95"]
    assert (low, high) == pytest.approx((0.3664, 0.6336), abs=1e-4)  # Wilson, 25 of 50
    rows = list(csv.DictReader((tmp_path / "cells.csv").read_text().splitlines()))
    assert len(rows) == 2 * 77
    assert rows[2]["cell"] == "gauss100"
    assert {row["accuracy"] for row in rows if row["corruption"] == "fog"} == {"0.500000"}
    assert Summary.load(tmp_path) == _summary("nct", 25)


def test_with_cells_missing_no_mce_is_given_out(tmp_path: Path) -> None:
    whole = _summary("nct", 25)
    cells = {name: cell for name, cell in whole.cells.items() if name != "fog/3"}
    replace(whole, cells=cells, missing=["fog/3"]).save(tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert (content["complete"], content["missing"]) == (False, ["fog/3"])
    assert content["scores"]["linear"]["mce_percent"] is None
    assert content["scores"]["linear"]["ce_percent_of"]["snow"] > 0


def test_other_neighbours_are_no_comparison(tmp_path: Path) -> None:
    for name in ("a", "b"):
        model = _summary(name, 25)
        replace(model, identity={**model.identity, "knn": {"k": [20], "images": name}}).save(tmp_path / name)
    with pytest.raises(ConfigError, match="knn: "):
        load_models([tmp_path / "a", tmp_path / "b"])


def test_a_table_holds_any_name() -> None:
    rows = rows_of([_summary("a|b\nc", 25)], "linear")
    assert markdown(rows).splitlines()[2].startswith("| a\\|b c | 80.0 |")


def test_models_side_by_side(tmp_path: Path) -> None:
    _summary("noisy", 20).save(tmp_path / "a")
    _summary("nct", 25).save(tmp_path / "b")
    models = load_models([tmp_path / "a", tmp_path / "b"])
    rows = rows_of(models, "linear")
    assert list(rows["nct"]) == ["clean", "mean of the 15", "mCE", "relative mCE", "gauss100"]
    assert [rows[name]["mean of the 15"] for name in rows] == pytest.approx([40, 50])
    assert rows["noisy"]["mCE"] == pytest.approx(64.67 * 0.6 / 0.5, abs=0.01)
    assert difference(models[0], models[1], "linear") == pytest.approx(
        dict.fromkeys(accuracies(models[0], "linear"), 0.1)
    )
    assert rows_of(models, "knn20")["nct"]["clean"] == pytest.approx(20)
    save(models, tmp_path / "out")
    assert "| nct | 80.0 | 50.0 | 64.7 |" in (tmp_path / "out/compare.md").read_text()
    cells = list(csv.DictReader((tmp_path / "out/compare.csv").read_text().splitlines()))
    assert {(row["noisy"], row["nct"]) for row in cells if row["cell"] == "fog/3" and row["probe"] == "linear"} == {
        ("0.400000", "0.500000")
    }
    assert "–" in markdown({"a": {"mCE": None}})


def _without_fog(summary: Summary) -> Summary:
    return replace(summary, cells={name: cell for name, cell in summary.cells.items() if name != "fog/3"})


def _other_images(summary: Summary) -> Summary:
    cell = replace(summary.cells["snow/2"], images={"hash": "other"})
    return replace(summary, cells={**summary.cells, "snow/2": cell})


def _other_probe(summary: Summary) -> Summary:
    return replace(summary, cells={n: replace(cell, right={"knn10": 1}) for n, cell in summary.cells.items()})


def _other_geometry(summary: Summary) -> Summary:
    return replace(summary, identity={**summary.identity, "geometry": "official"})


@pytest.mark.parametrize(
    ("change", "named"),
    [(_without_fog, "fog/3"), (_other_images, "snow/2"), (_other_probe, "knn10"), (_other_geometry, "geometry")],
)
def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path, change: object, named: str) -> None:
    _summary("noisy", 20).save(tmp_path / "a")
    change(_summary("nct", 25)).save(tmp_path / "b")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=named):
        load_models([tmp_path / "a", tmp_path / "b"])


def test_other_refusals(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        _summary("nct", 20).save(tmp_path / folder)
    with pytest.raises(ConfigError, match="two models are called 'nct'"):
        load_models([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ConfigError, match="at least two"):
        load_models([tmp_path / "a"])
    with pytest.raises(MissingFolderError, match="evaluate corruptions"):
        load_models([tmp_path / "a", tmp_path / "c"])
    (tmp_path / "b/summary.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"summary\.json"):
        load_models([tmp_path / "a", tmp_path / "b"])
