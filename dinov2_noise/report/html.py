"""One self-contained HTML file: pictures inside, no scripts, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dinov2_noise import __version__
from dinov2_noise.files import atomic_path

TEMPLATE = "report.html.jinja"
STYLESHEET = "report.css"

_NUMBER = re.compile(r"[-+−±]?\d[\d.,]*\s*(%|dB|s|min|h|MiB|GiB)?(\s*(±|\[|\().*)?|[-–—∞]|")


@dataclass(frozen=True)
class Table:
    """Rows of plain text; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"each row of a table needs {len(self.columns)} cells: {', '.join(self.columns)}")

    def numeric(self) -> list[bool]:
        """Whether a column holds nothing but numbers (with unit or interval), and is set flush right."""
        return [all(_NUMBER.fullmatch(row[index].strip()) for row in self.rows) for index in range(len(self.columns))]


@dataclass(frozen=True)
class FigureBlock:
    """A picture drawn at twice the width it is shown at, as :mod:`dinov2_noise.report.figures` draws them."""

    title: str
    png: bytes
    caption: str
    alt: str

    @property
    def uri(self) -> Markup:
        """The picture as a ``data:`` address."""
        return Markup("data:image/png;base64," + base64.b64encode(self.png).decode("ascii"))

    def shown_size_px(self) -> tuple[int, int]:
        """Width and height on the page."""
        width, height = png_size(self.png)
        return width // 2, height // 2


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height from the header of a PNG.

    Raises:
        ValueError: the bytes are no PNG.
    """
    if png[:8] != b"\x89PNG\r\n\x1a\n" or png[12:16] != b"IHDR":
        raise ValueError("figures are PNG bytes")
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def write_report(
    path: Path,
    *,
    title: str,
    summary: str,
    facts: Mapping[str, str],
    table: Table,
    figures: Sequence[FigureBlock],
    notes: Sequence[str],
) -> None:
    """Write the report atomically; all text is plain text and is escaped.

    Args:
        path: the HTML file.
        title: heading and window title.
        summary: what was found; an empty line starts a new paragraph.
        facts: short name → value pairs shown under the summary (data, budget, device, …).
        table: the results.
        figures: pictures in the order of the page.
        notes: how to read the numbers, one paragraph each.
    """
    environment = Environment(
        loader=PackageLoader("dinov2_noise", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(TEMPLATE).render(
        title=title,
        paragraphs=[paragraph.strip() for paragraph in re.split(r"\n\s*\n", summary) if paragraph.strip()],
        facts=facts,
        table=table,
        figures=figures,
        notes=notes,
        version=__version__,
        stylesheet=STYLESHEET,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
