"""Numbers in the tables, floors, the sweep's places and bands, scores and costs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from helpers import SmallSet
from report_files import STAGES, config, entry, record, summary, write_run

from dinov2_noise.evaluation.snr import snr_db
from dinov2_noise.report.collect import Found, collect
from dinov2_noise.report.costs import costs_section, duration, times_of
from dinov2_noise.report.facts import comparison, facts_of, runs_section, summary_of, title_of
from dinov2_noise.report.floor_rows import Floors, floors_of, matching
from dinov2_noise.report.html import FigureBlock, Missing, Table
from dinov2_noise.report.images import Choice, open_images
from dinov2_noise.report.results import results_section
from dinov2_noise.report.robustness import robustness_section
from dinov2_noise.report.runs import read_run
from dinov2_noise.report.spread import groups_of
from dinov2_noise.report.sweep import cached_snr, points_of, sweep_section

HERE = Path("record.json")


def _table(blocks: object, number: int = 0) -> Table:
    return [block for block in blocks if isinstance(block, Table)][number]  # type: ignore[attr-defined]


def _cells(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in table.rows]


def test_a_table_shows_mean_spread_seeds_interval_and_floors() -> None:
    floors = {"chance": 0.1, "colour": 0.25}
    records = [(HERE, record("nct", value, seed, details={"floors": floors})) for seed, value in enumerate((0.8, 0.84))]
    records += [(HERE, record("noisy", value, seed)) for seed, value in enumerate((0.5, 0.51, 0.52))]
    blocks = results_section(groups_of(records), []).blocks
    table = _table(blocks)
    low, high = (sum(record("x", v).interval()[end] for v in (0.8, 0.84)) / 2 for end in (0, 1))
    assert _cells(table)[0] == ["nct", "82.0", "2.8", "2", f"{100 * low:.1f} to {100 * high:.1f}", "400"]
    assert _cells(table)[1][:4] == ["noisy", "51.0", "1.0", "3"]
    assert _cells(table)[2:] == [["chance", "10.0", *"––––"], ["colour alone", "25.0", *"––––"]]
    assert (list(table.faint), list(table.groups)) == ([2, 3], [(0, "noisy (val)")])
    assert isinstance(blocks[0], FigureBlock)


def test_the_badge_says_whether_it_holds_over_trainings() -> None:
    several = [
        (HERE, record(arm, base + seed / 100, seed)) for arm, base in (("a", 0.8), ("b", 0.5)) for seed in (0, 1, 2)
    ]
    single = [(HERE, record("a", 0.8)), (HERE, record("b", 0.5))]
    close = [(HERE, record("a", 0.51)), (HERE, record("b", 0.5))]
    badges = []
    for records in (several, single, close):
        rows = _table(results_section(groups_of(records), []).blocks).cells()
        badges.append([row[1].badge for row in rows])
    assert badges == [["best", ""], ["best on these images", ""], ["", ""]]


def test_floors_are_computed_beside_the_training_images(tmp_path: Path, small_set: SmallSet) -> None:
    run = read_run(write_run(tmp_path / "nct", config(small_set.pair())), "nct")
    gone = read_run(write_run(tmp_path / "gone"), "gone")
    (floors,) = floors_of([run, run, gone])
    assert (floors.label, floors.values["chance"]) == ("noisy (val), gauss100", pytest.approx(0.2))
    assert 0 <= floors.values["mean colour, k-NN"] <= 1
    assert matching("noisy (val)", [floors]) is floors
    assert matching("noisy validation cells, gauss100, k = 10", [floors]) is floors
    assert matching("denoised (val)", [floors]) is None
    rows = _cells(_table(results_section(groups_of([(HERE, record("nct", 0.5))]), [floors]).blocks))
    assert rows[1][:2] == ["chance", "20.0"]


def test_the_summary_compares_with_the_baseline() -> None:
    groups = groups_of([(HERE, record("nct", 0.8)), (HERE, record("nc", 0.7)), (HERE, record("noisy", 0.5))])
    text = comparison(groups)
    assert "nct 80.0\u00a0%, noisy 50.0\u00a0%; the difference is +30.0 points" in text
    assert "more than its uncertainty" in text
    assert "one training" in text
    alone = comparison(groups_of([(HERE, record("nct", 0.8))]))
    assert "no other arm" in alone
    assert comparison({}) == ""


def test_facts_hold_for_all_runs_and_settings_name_unknown_keys(tmp_path: Path) -> None:
    content = config(seed=0) | {"wobble": {"deep": 3}}
    runs = [read_run(write_run(tmp_path / "a", content), "a"), read_run(write_run(tmp_path / "b", config(seed=1)), "b")]
    found = Found(runs, [(HERE, record("a", 0.5))])
    facts = facts_of(found)
    assert (facts["Seeds"], facts["Crops"], facts["Versions"]) == ("0, 1", "2x32 + 2x16 px", "torch 2")
    assert title_of(found) == "Report: a, b"
    assert "2 trainings of vit_tiny on ImageNet:split=TRAIN:root=gone, 50 iterations each: a, b." in summary_of(
        found, {}
    )
    table = _table(runs_section(runs).blocks)
    assert list(table.rows[0]) == ["a", "gone (train)", "denoised, 30 → noisy with anchor, 20", "50", "0", "finished"]


@pytest.mark.upstream
def test_settings_are_compared_with_upstreams_default(tmp_path: Path) -> None:
    content = config() | {"wobble": {"deep": 3}}
    runs = [read_run(write_run(tmp_path / "a", content), "a"), read_run(write_run(tmp_path / "b", config()), "b")]
    table = _table(runs_section(runs).blocks, 1)
    rows = {row[0]: row[1:] for row in _cells(table)}
    assert rows["student.arch"] == ["vit_large", "vit_tiny", "″"]
    assert rows["wobble.deep"] == ["–", "3", "–"]
    assert "curriculum.stages" not in rows
    assert "wobble.deep" in table.caption


def test_a_sweep_stands_at_the_ratio_of_its_images(small_set: SmallSet) -> None:
    dataset = f"ImageNet:split=VAL:root={small_set.clean}"
    benchmark = [(Path(), summary("nct", {"clean": 80, "gauss50": 60, "gauss255": 30}, dataset))]
    points = {point.noise: point for point in points_of([], benchmark, cached_snr())}
    images = open_images(_run_on(dataset, small_set), Choice(noise="gauss50"))
    pairs = [(images.clean(index), images.noisy(index)) for index in range(len(images))]
    assert points["gauss50"].snr_db == pytest.approx(snr_db(pairs))  # type: ignore[arg-type]
    assert points["gauss50"].snr_db > points["gauss255"].snr_db
    assert points["clean"].snr_db is None
    (block,) = sweep_section(list(points.values())).blocks
    assert isinstance(block, FigureBlock)
    assert "nct against noise: gauss255, gauss50, clean" in block.alt


def _run_on(dataset: str, small_set: SmallSet) -> object:
    folder = small_set.clean.parent / "run-on-clean"
    return read_run(write_run(folder, config(dataset.replace("VAL", "TRAIN"))), "x")


def test_without_images_noises_stand_in_order_of_strength() -> None:
    benchmark = [(Path(), summary("nct", {"clean": 80, "gauss50": 60, "gauss255": 30, "shot3": 40, "shot10": 50}))]
    points = points_of([], benchmark, cached_snr())
    assert math.isnan(next(point.snr_db for point in points if point.noise == "gauss50") or 0)
    (block,) = sweep_section(points).blocks
    assert isinstance(block, FigureBlock)
    assert block.alt.endswith("gauss255, gauss50, shot3, shot10, clean.")
    assert "order of their names" in block.caption


def test_records_with_a_ratio_make_a_sweep_by_set_and_training() -> None:
    records = []
    for seed in (0, 1):
        for noise, ratio, value in (("clean", None, 0.8), ("gauss50", 9.0, 0.6)):
            details = {"noise": noise, "snr_db": ratio, "set": "birds", "train_noise": "clean"}
            records.append((HERE, record("nct", value + seed / 50, seed, details=details)))
    points = points_of(records, [], cached_snr())
    assert {point.metric for point in points} == {"k-NN top-1, birds", "k-NN top-1, birds, trained on clean"}
    assert isinstance(sweep_section(points[:1]).blocks[0], Missing)


def test_scores_of_models_side_by_side() -> None:
    one, other = (summary(name, {"clean": 80, "fog/1": right, "gauss50": 60}) for name, right in (("a", 70), ("b", 50)))
    section = robustness_section([(Path("x"), one), (Path("y"), other)])
    assert [block.kind for block in section.blocks] == ["figure", "figure", "table"]
    table = _table(section.blocks)
    assert _cells(table) == [["a", "80.0", "–", "–", "–", "60.0"], ["b", "80.0", "–", "–", "–", "60.0"]]
    twins = robustness_section([(Path("x"), one), (Path("y"), summary("a", {"clean": 10, "fog/1": 5}))])
    assert [row[0] for row in _cells(_table(twins.blocks))] == ["a (x)", "a (y)"]
    assert isinstance(robustness_section([]).blocks[0], Missing)


def test_time_of_stages_from_logged_means(tmp_path: Path) -> None:
    lines = [entry(0, iter_time=2.0), entry(20), entry(40, iter_time=1.0, data_time=0.5)]
    (tmp_path / "nct" / "logs").mkdir(parents=True)
    (tmp_path / "nct" / "logs" / "log.txt").write_text("I x] Training  [40/50]  max mem: 812\n")
    run = read_run(write_run(tmp_path / "nct", config(stages=STAGES), lines), "nct")
    first, second = times_of(run)
    # 0: 2 s; 1 to 20: 0.5 s; 21 to 29 and, of the second stage, 30 to 40: 1 s
    assert (first.n_iterations, first.seconds) == (30, pytest.approx(2 + 20 * 0.5 + 9 * 1.0))
    assert first.waiting_s == pytest.approx(0.1 + 20 * 0.1 + 9 * 0.5)
    assert (second.n_iterations, second.seconds) == (11, pytest.approx(11.0))
    table = _table(costs_section([run]).blocks)
    rows = _cells(table)
    assert rows[1][:6] == ["noisy", "11", "11 s", "1", "4", "50 %"]
    assert rows[2][:3] == ["in all", "41", "32 s"]
    named = dict(zip(table.columns, map(str, table.rows[0]), strict=True))
    assert named["GPU memory"] == "812 MiB"
    assert re.fullmatch(r"[\d.]+ [GT]FLOPs|–", named["arithmetic"])  # – where dinov2 is not installed
    assert [duration(seconds) for seconds in (45, 95, 5000, 90_000, 200_000)] == [
        "45 s",
        "1.58 min",
        "83.3 min",
        "25 h",
        "2.31 d",
    ]


def test_costs_of_an_arm_are_means_of_its_finished_runs(tmp_path: Path) -> None:
    ends = {0: [entry(0), entry(49, iter_time=0.2)], 1: [entry(0), entry(49, iter_time=0.4)], 2: [entry(0), entry(9)]}
    for seed, entries in ends.items():
        write_run(tmp_path / f"nct-{seed}", config(seed=seed), entries)
    table = _table(costs_section(collect([tmp_path]).runs).blocks)
    titles = dict(table.groups)
    assert titles == {0: "nct, mean of 2 runs", 3: "nct-2 (unfinished: 10 of 50 iterations)"}
    rows = _cells(table)
    # of 29 + 1 steps: 0.5 + 29 x 0.2 and 0.5 + 29 x 0.4
    assert rows[0][:4] == ["denoised", "30", f"{(6.3 + 12.1) / 2:.3g} s", f"{(6.3 + 12.1) / 60:.3g}"]
    assert rows[3][:2] == ["denoised", "10"]
    assert "All 3 runs together" in table.caption


def test_further_metrics_of_a_probe_are_folded_and_come_last() -> None:
    names = ("logistic_macro_f1", "logistic_top1", "logistic_top5", "dense_macro_f1")
    blocks = results_section(groups_of([(HERE, record("nct", 0.5, metric=name)) for name in names]), []).blocks
    tables = [(block.title, block.folded) for block in blocks if isinstance(block, Table)]
    assert tables == [
        ("Logistic regression top-1, all numbers", False),
        ("Dense macro F1, all numbers", False),
        ("Logistic macro F1, all numbers", True),
        ("Logistic top-5, all numbers", True),
    ]
    assert len([block for block in blocks if isinstance(block, FigureBlock)]) == 2


def test_noises_are_compared_apart() -> None:
    records = []
    for noise, loss in (("gauss100", 0.0), ("gauss255", 0.2)):
        for arm, value in (("nct", 0.6), ("noisy", 0.4)):
            dataset = f"ImageNet:split=VAL:root=/data/{noise}"
            records += [
                (HERE, record(arm, value - loss + seed / 100, seed, dataset=dataset, details={"noise": noise}))
                for seed in (0, 1, 2)
            ]
    groups = groups_of(records)
    table = _table(results_section(groups, []).blocks)
    assert [row[:4] for row in _cells(table)] == [
        ["nct", "61.0", "1.0", "3"],
        ["noisy", "41.0", "1.0", "3"],
        ["nct", "41.0", "1.0", "3"],
        ["noisy", "21.0", "1.0", "3"],
    ]
    assert list(table.groups) == [(0, "gauss100 (val)"), (2, "gauss255 (val)")]
    assert comparison(groups).count("the difference is +20.0 points") == 2


def test_denoised_images_stand_at_the_ratio_of_the_noisy_ones() -> None:
    records = []
    for noise, ratio in (("gauss100", 4.0), ("gauss100-denoised", 4.0), ("gauss255", None), ("clean", None)):
        details = {"noise": noise, "train_noise": noise, "snr_db": ratio}
        records.append((HERE, record("nct", 0.5, details=details)))
    records.append((HERE, record("b", 0.5, details={"noise": "gauss255", "train_noise": "gauss255", "snr_db": -1.0})))
    points = points_of(records, [], cached_snr())
    found = {(point.arm, point.noise): point.snr_db for point in points}
    assert found == {
        ("nct", "gauss100"): 4.0,
        ("nct (on denoised images)", "gauss100"): 4.0,
        ("nct", "gauss255"): -1.0,  # its images are gone; not taken for clean ones
        ("b", "gauss255"): -1.0,
        ("nct", "clean"): None,
    }


def test_a_floor_of_another_name_is_not_taken() -> None:
    floors = Floors("noisy (val)", "noisy", {"chance": 0.1}, "")
    assert matching("very-noisy (val)", [floors]) is None
