"""Pages link to what exists, and shipped configs carry the header that readers need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dinov2_noise.configs import shipped

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("patches/*.md"), *ROOT.glob("configs/*.md")])


def text_of(page: Path) -> str:
    """A page without its code, in which ``](`` is no link."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors_of(page: Path) -> set[str]:
    """The names that a repository page gives its headings: lower case, no punctuation, - for spaces."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", text_of(page))
    for link in links:
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        path = page.parent / target if target else page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors_of(path), f"{link}: {target or page.name} has no such heading"


def test_every_picture_is_shown_on_a_page_and_none_is_heavy() -> None:
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        if page.name != "gallery.md"
        for link in re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", text_of(page))
    }
    pictures = {path.resolve() for path in (ROOT / "docs" / "img").iterdir()}
    assert {path.name for path in pictures - shown} == set()
    assert {path.name for path in pictures if path.stat().st_size > 700_000} == set()


def test_the_gallery_shows_every_picture() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "img").iterdir():
        assert f"(img/{path.name})" in text, path.name


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
