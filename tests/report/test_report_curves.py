"""Curves hold the logged numbers, stages are marked, and measured accuracies are told in per cent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from report_files import STAGES, config, entry, write_lines, write_monitor, write_run

from dinov2_noise.report import curve_figures, curves
from dinov2_noise.report.arms import with_arms
from dinov2_noise.report.html import FigureBlock, Missing, Section, Table
from dinov2_noise.report.runs import Run, read_run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    return _collected(monkeypatch)


def _collected(patch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures behind the PNGs, of each the wide and the narrow one."""
    found: list[Figure] = []
    original = curve_figures.figure_as_png

    def png(draw: Any, *args: Any, **kwargs: Any) -> bytes:
        return original(lambda figure: (draw(figure), found.append(figure)), *args, **kwargs)

    patch.setattr(curve_figures, "figure_as_png", png)
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Section, list[Figure]]:
    """The section of two runs, drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        figures = _collected(patch)
        return curves.curves_section(_runs(tmp_path_factory.mktemp("curves"))), figures


def _runs(folder: Path) -> list[Run]:
    nct = write_run(folder / "nct", entries=[entry(i, anchor_ibot_loss=2.0) if i >= 30 else entry(i) for i in (0, 30)])
    plain = [{"name": "all", "epochs": 5, "view": "noisy"}]
    noisy = write_run(folder / "noisy", config(stages=plain), [entry(0, dino_global_crops_loss=2.0), entry(49)])
    write_lines(nct / "health.jsonl", [{"iteration": 0, "stage": "denoised", "feature_std": 0.05, "anchor_gap": None}])
    write_monitor(nct)
    return [read_run(nct, "nct"), read_run(noisy, "noisy")]


def _panels(figure: Figure) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}


def test_every_logged_number_is_drawn_with_the_switch(shown: tuple[Section, list[Figure]]) -> None:
    section, drawn = shown
    titles = [block.title for block in section.blocks if isinstance(block, FigureBlock)]
    assert titles == ["Losses", "Schedules", "Measured while training", "Health signs"]
    losses = _panels(drawn[0])
    assert list(losses) == ["total loss", "DINO, global crops", "anchor: iBOT"]
    nct, noisy = (line for line in losses["total loss"].lines if line.get_label() in ("nct", "noisy"))
    assert (list(nct.get_xdata()), list(nct.get_ydata())) == ([0, 30], [9.0, 6.0])
    assert list(noisy.get_ydata()) == [9.0, pytest.approx(4.1)]
    assert nct.get_color() != noisy.get_color()
    for axes in losses.values():
        assert [30, 30] in [list(line.get_xdata()) for line in axes.lines]
    assert "→ noisy" in [text.get_text() for text in losses["total loss"].texts]
    floor = next(line for line in losses["DINO, global crops"].lines if list(line.get_xdata()) == [0, 1])
    assert floor.get_ydata()[0] == pytest.approx(2 * math.log(512) / 6)  # 2 of 2 + 2 x 2 terms


def test_the_teacher_temperature_is_the_configured_one_so_far(shown: tuple[Section, list[Figure]]) -> None:
    _, drawn = shown
    schedules = _panels(drawn[2 * 1])
    assert list(schedules) == ["learning rate", "teacher temperature", "teacher momentum"]
    line = next(line for line in schedules["teacher temperature"].lines if line.get_label() == "nct")
    assert list(line.get_ydata())[:10] == pytest.approx([0.04 + 0.03 * step / 9 for step in range(10)])
    assert line.get_ydata()[29] == pytest.approx(0.07)
    assert line.get_ydata()[30] == pytest.approx(0.04)  # the restart begins it anew
    assert len(line.get_ydata()) == 41  # not beyond what the logs tell


def test_measurements_are_in_per_cent_and_by_images(shown: tuple[Section, list[Figure]]) -> None:
    section, drawn = shown
    measured = _panels(drawn[2 * 2])
    assert list(measured) == ["k-NN top-1 (%)", "RankMe"]
    lines = {line.get_label(): line for line in measured["k-NN top-1 (%)"].lines}
    assert list(lines["nct, noisy"].get_ydata()) == pytest.approx([30, 40, 50])
    assert lines["nct, noisy"].get_linestyle() != lines["nct, clean"].get_linestyle()
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert list(table.columns) == [
        "run",
        "iteration",
        "k-NN top-1 (%), clean",
        "k-NN top-1 (%), noisy",
        "RankMe, noisy",
    ]
    assert list(table.rows[0]) == ["nct", "40", "70.0", "50.0", "9.0"]


def test_one_measurement_is_no_curve(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "nct", entries=[entry(0)])
    further = {"uniformity/noisy": -2.4, "twin_agreement": 0.6}
    write_monitor(folder, [49], **further)
    section = curves.curves_section([read_run(folder, "nct")])
    assert "Measured while training" not in [block.title for block in section.blocks if isinstance(block, FigureBlock)]
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert list(table.rows[0]) == ["nct", "49", "50.0", "30.0", "9.0", "−2.40", "0.600"]
    assert not any("monitor.jsonl" in block.text for block in section.blocks if isinstance(block, Missing))


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    assert isinstance(curves.curves_section([]).blocks[0], Missing)
    begun = read_run(write_run(tmp_path / "begun", entries=[entry(0), entry(10)]), "begun")
    texts = [block.text for block in curves.curves_section([begun]).blocks if isinstance(block, Missing)]
    assert "begun, unfinished: 11 of 50 iterations" in texts[0]
    assert "monitor.jsonl" in texts[1]


def test_seeds_share_a_colour_and_losses_that_are_not_finite_a_gap(tmp_path: Path, drawn: list[Figure]) -> None:
    entries = [entry(0), entry(10, total_loss=math.nan), entry(20)]
    seeds = {"nc-seed0": 0, "nc-seed1": 1, "nct_s0": 0, "_odd $x$": 0}
    runs = with_arms(
        [read_run(write_run(tmp_path / name, config(seed=seed), entries), name) for name, seed in seeds.items()]
    )
    looks = curves.styles(runs)
    assert looks["nc-seed0"] == looks["nc-seed1"] != looks["nct_s0"]
    curves.curves_section(runs)
    line = _panels(drawn[0])["total loss"].lines[0]
    assert list(line.get_xdata()) == [0, 20]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["nc", "nct_s0", " _odd $x$"]
    assert len([line for line in _panels(drawn[0])["total loss"].lines if line.get_label() == "nc"]) == 2


def test_stages_that_begin_together_share_a_label(tmp_path: Path) -> None:
    other = [{**STAGES[0]}, {**STAGES[1], "name": "anchored"}]
    runs = [read_run(write_run(tmp_path / "a"), "a"), read_run(write_run(tmp_path / "b", config(stages=other)), "b")]
    assert curves.switch_labels(runs) == {30: "→ noisy / anchored"}
