"""Numbers in words, for the report."""

from __future__ import annotations

from collections.abc import Sequence


def many(count: int, word: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def share(value: float) -> str:
    """In percent, with one digit below ten; a little is never said to be nothing."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "<0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"


def size_text(size_bytes: int) -> str:
    """``1.3 GB``; thousands, as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            break
        size_bytes, unit = size_bytes / 1000, unit  # type: ignore[assignment]
    return f"{size_bytes:.3g} {unit}"


def more(count: int, shown: int) -> list[str]:
    """What ends a list of which only the first few are given."""
    return [f"… and {count - shown} more"] if count > shown else []


def named_lines(files: Sequence[str], count: int) -> str:
    """Files below one another, after a line that says how many there are."""
    return "".join(f"\n  {line}" for line in [*files, *more(count, len(files))])
