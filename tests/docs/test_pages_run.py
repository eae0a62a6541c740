"""The pages' own command lines, run in their order on small data; and that none is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pages.blocks import ROOT, commands, pages
from pages.material import Material
from pages.play import Scenario, play
from pages.scenarios import SCENARIOS

_LONG_S, _SHORT_S = 3600, 600  # against a command that hangs


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in pages()])
def test_every_command_is_run_here_or_says_what_it_needs(page: str) -> None:
    open_ones = [command for command in commands(ROOT / page) if not command.needs]
    assert not open_ones or page in {scenario.page for scenario in SCENARIOS}, (
        f"{open_ones[0].place}: no scenario in tests/pages/scenarios.py runs it, and no comment `# needs …` says why"
    )


@pytest.mark.upstream
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.page)
def test_quick_commands(scenario: Scenario, material: Material, warm_command: Path, tmp_path: Path) -> None:
    play(scenario, tmp_path, material, warm_command, dear=False, timeout_s=_SHORT_S)
    shutil.rmtree(tmp_path)  # pytest would keep it, trainings and all


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.parametrize(
    "scenario",
    [s for s in SCENARIOS if s.commands(dear=True) != s.commands(dear=False)],
    ids=lambda scenario: scenario.page,
)
def test_all_commands(scenario: Scenario, material: Material, warm_command: Path, tmp_path: Path) -> None:
    play(scenario, tmp_path, material, warm_command, dear=True, timeout_s=_LONG_S)
    shutil.rmtree(tmp_path)
