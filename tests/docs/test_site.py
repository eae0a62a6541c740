"""The documentation as a site: every page is in it, nothing comes from elsewhere, lists and links come out right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[2]
_OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*?\ssrc=["']?(?:https?:)?//|<link[^>]*stylesheet[^>]*https?://"""
)


def nav_pages() -> list[str]:
    """All pages of mkdocs.yml's nav, in order."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for child in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
            yield from walk(child)

    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("", lambda *_: None)  # type: ignore[attr-defined]
    content = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=loader)
    return list(walk(content["nav"]))


def test_every_page_is_in_the_nav_and_every_entry_is_a_page() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    listed = nav_pages()
    assert len(listed) == len(set(listed))
    shown = {"index.md", "repository/configs/README.md", "repository/patches/README.md"}  # made from files elsewhere
    assert {*listed} - shown == pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it."""
    target = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.delenv("REPO_URL", raising=False)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(target), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)  # strict: a link or an anchor that leads nowhere raises
    return target


def test_pages_are_there_with_files_of_the_repository_beside_them(site: Path) -> None:
    for page in nav_pages():
        html = page.removesuffix(".md").replace("README", "index") + ".html"
        assert (site / html).is_file(), page
    reproducing = (site / "reproducing.html").read_text(encoding="utf-8")
    assert 'href="repository/dinov2_noise/configs/nct.yaml.html"' in reproducing
    shown = (site / "repository" / "dinov2_noise" / "configs" / "nct.yaml.html").read_text(encoding="utf-8")
    assert "2505.12191" in shown
    assert 'href="noise.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = _OUTSIDE.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page.name}: {found and found[0]}"


def test_search_knows_the_pages(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "Neighbor2Neighbor" in index
    assert '"location":"curriculum.html' in index


def test_lists_and_code_come_out_as_on_the_repository_page(site: Path) -> None:
    """Python-Markdown needs an empty line before a list, and four spaces within one."""
    for page in [site / name for name in sorted(path.name for path in site.glob("*.html"))]:
        prose = re.sub(r"<pre.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        found = re.search(r"<p>[^<]*\n(?:\* |- |\d+\. )[^\n]*", prose) or re.search(r"[^\n]*```[^\n]*", prose)
        assert found is None, f"{page.name}: {found and found[0][:200]}"
