"""The page's tables are those of the records beside it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from dinov2_noise.evaluation.records import Record

DOCS = Path(__file__).parent.parent.parent / "docs"
RECORDS = DOCS / "records" / "repro_imagenette_cpu"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "figures" / "reproduction.py"))


def test_tables_are_those_of_the_records(script: dict[str, Any]) -> None:
    page = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    assert script["result_table"]() in page
    assert script["difference_table"]() in page


def test_every_training_has_its_records_without_a_machines_paths() -> None:
    records = [Record.load(path) for path in RECORDS.glob("*.json")]
    measured = {(record.arm, record.metric, record.seed, record.dataset) for record in records}
    assert len(records) == len(measured) == 4 * 2 * 3 * 2  # arms, noises, seeds, probes
    assert {record.n_images for record in records} == {500}
    assert all(record.details["has_converged"] for record in records if record.metric == "logistic_top1")
    assert not any(str(value).startswith("/") for record in records for value in record.details.values())
    assert not any("root=/" in record.dataset for record in records)
