"""Pages link to what exists, and shipped configs carry the header that readers need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dinov2_noise.configs import shipped

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("patches/*.md"), *ROOT.glob("configs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_the_readme_begins_with_the_two_commands_and_links_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(make \w+)", text, flags=re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in text, page.name


@pytest.mark.parametrize("name", sorted(shipped()))  # the catalogue: tests/configs
def test_configs_say_paper_command_cost_and_result(name: str) -> None:
    header = shipped()[name].read_text(encoding="utf-8").split("\ntrain:")[0]
    for label in ("Paper:", "Command:", "Cost:", "Expected:", "Measured here:"):
        assert label in header
    assert f"dinov2_noise/configs/{name}.yaml" in header
