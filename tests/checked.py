"""`check` as tests call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dinov2_noise.check import Findings, check, report_lines


def looked(data: str | Path, **options: Any) -> Findings:
    return check(data, workers=1, progress=False, **options)


def text_of(found: Findings) -> dict[str, str]:
    lines: dict[str, str] = {}
    word = ""
    for name, text in report_lines(found):
        word = name.strip() or word
        lines[word] = f"{lines[word]}\n{text}" if word in lines else text
    return lines
