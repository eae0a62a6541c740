"""Code blocks of a page, and the commands in them.

A command that cannot be run just so says why in a comment which begins with ``needs``: at the end of its line; on a
line of its own, for the rest of the block; or as ``<!-- needs … -->`` before the block.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a test here cannot have; a mark names at least one of them.
SCARCE = (
    *("GPU", "SLURM", "ImageNet", "network", "checkout", "conda", "Docker", "modules", "proxy", "W&B"),
    *("published", "second machine", "that folder", "environment", "browser", "deepinv"),
)
_FENCE = re.compile(r"^ *```(\w*) *$")
_BEFORE = re.compile(r"^ *<!-- needs (.*?) -->$")
_COMMENT = re.compile(r"(?:^|\s)#(?!!)\s*(?P<text>.*)$")
_NEEDS = re.compile(r"^(?:.*[;,] )?needs (?P<what>.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its fence, counted from 1; ``needs`` what the comment before it says."""

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    needs: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Command:
    """One command of a shell block, with the lines that continue it; comments are taken out."""

    page: Path
    line: int
    text: str
    needs: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All pages with commands, from the repository's root down."""
    others = [ROOT / "patches" / "README.md", ROOT / "configs" / "README.md"]
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *others]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page; inside a list they are indented, which is taken away."""
    found: list[Block] = []
    inside: list[str] | None = None
    language, start, needs, before = "", 0, "", ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if inside is None and fence:
            mark = _BEFORE.match(before)
            inside, language, start, needs = [], fence[1], number, mark[1] if mark else ""
        elif inside is not None and fence:
            width = min((len(text) - len(text.lstrip()) for text in inside if text.strip()), default=0)
            found.append(Block(page, start, language, tuple(text[width:] for text in inside), needs))
            inside = None
        elif inside is not None:
            inside.append(line)
        before = line if line.strip() else before
    assert inside is None, f"{page}: a code block is not closed"
    return found


def commands(page: Path) -> list[Command]:
    """The commands of all shell blocks of a page, in their order."""
    return [command for block in blocks(page) for command in _of_block(block)]


def _of_block(block: Block) -> Iterator[Command]:
    if block.language == "console":
        lines = [line[2:] if line.startswith("$ ") else "" for line in block.lines]
    elif block.language in ("", "bash", "sh"):
        lines = list(block.lines)
    else:
        return
    needs, parts, first = block.needs, [], 0
    for number, line in enumerate(lines, start=block.line + 1):
        bare, comment = _split_comment(line)
        mark = _NEEDS.match(comment)
        if not parts and (not bare.strip() or bare.startswith("#!")):
            needs = mark["what"] if mark else needs
            continue
        first = first if parts else number
        parts.append(bare.rstrip())
        if _is_complete(parts):
            own = mark["what"] if mark else needs
            yield Command(block.page, first, "\n".join(parts), own)
            parts = []
    assert not parts, f"{block.page}:{first}: the command does not end"


def _split_comment(line: str) -> tuple[str, str]:
    """A line without its comment, and the comment; a # inside of quotes begins none."""
    for found in _COMMENT.finditer(line):
        bare = line[: found.start()]
        if bare.count("'") % 2 == 0 and bare.count('"') % 2 == 0:
            return bare, found["text"]
    return line, ""


def _is_complete(lines: list[str]) -> bool:
    """Whether nothing of the command is still to come: no open quote, no backslash, no loop."""
    if lines[-1].endswith("\\"):
        return False
    try:
        words = shlex.split("\n".join(lines))
    except ValueError:  # an open quote
        return False
    return words.count("do") <= words.count("done")
