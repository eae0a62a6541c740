"""A hook of MkDocs: pages link to files of the repository outside docs/, which become pages of the site.

``README.md`` is the site's first page; another Markdown file keeps its text; any other file is shown as code; a folder
as its README or as a list. Links stay as they are in the pages, so they lead somewhere in the repository too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<after>[^)]*\))")
_NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
_FENCE = re.compile(r"^ *(```|~~~)")


def is_external(target: str) -> bool:
    """Whether a link leaves the repository."""
    return re.match(r"[a-z]+:", target) is not None


def rewrite(markdown: str, change: Callable[[str], str]) -> str:
    """The text with every link's target changed; not those in code blocks."""
    lines, in_code = [], False
    for line in markdown.split("\n"):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code:
            line = _LINK.sub(lambda found: found["before"] + change(found["target"]) + found["after"], line)
        lines.append(line)
    return "\n".join(lines)


def repository_path(source: str) -> str:
    """Site source → path in the repository: of a docs page, of the first page, of a file shown."""
    if source == "index.md":
        return "README.md"
    shown = source.removeprefix("repository/")
    if shown == source:
        return f"docs/{source}"
    return shown if shown.endswith("README.md") else shown.removesuffix(".md")


def site_source(path: str, root: Path) -> str:
    """Path in the repository → site source, the inverse of `repository_path`."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (root / path / "README.md").is_file():
        return f"repository/{path}/README.md"
    return f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md"


def target_in_repository(target: str, source: str) -> str:
    """Where a link of the page ``source`` leads, from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(source)), target))


def text_of(source: str, root: Path) -> str:
    """The Markdown of a page that shows a file or folder of the repository."""
    path = repository_path(source)
    file = root / path
    if file.is_dir():
        names = sorted(child.name for child in file.iterdir() if child.is_file() and child.suffix in (".py", ".yaml"))
        return f"# {path}\n\n" + "\n".join(f"* [{name}]({file.name}/{name})" for name in names) + "\n"
    content = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return content
    language = {".py": "python", ".yaml": "yaml", ".patch": "diff"}.get(file.suffix, "text")
    return f"{_NOT_SEARCHED}# {path}\n\n````{language}\n{content.rstrip()}\n````\n"


def links_out(text: str, source: str, root: Path) -> list[str]:
    """The site sources of what a page leads to outside docs/."""
    found: list[str] = []

    def note(target: str) -> str:
        path = target_in_repository(target, source)
        if not is_external(target) and not path.startswith("docs/") and (root / path).exists():
            found.append(site_source(path, root))
        return target

    rewrite(text, note)
    return found


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for the README and for every file that a page leads to."""
    root = Path(config.config_file_path).parent
    waiting, added = ["index.md"], set()
    for file in files.documentation_pages():
        waiting += links_out(Path(file.abs_src_path or "").read_text(encoding="utf-8"), file.src_uri, root)
    while waiting:
        source = waiting.pop()
        if source not in added:
            added.add(source)
            text = text_of(source, root)
            files.append(File.generated(config, source, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
            waiting += links_out(text, source, root)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links into the repository at the pages that show it."""
    root = Path(config.config_file_path).parent
    source = page.file.src_uri

    def change(target: str) -> str:
        if is_external(target):
            return target
        linked = site_source(target_in_repository(target, source), root)
        return posixpath.relpath(linked, posixpath.dirname(source) or ".")

    return rewrite(markdown, change)
