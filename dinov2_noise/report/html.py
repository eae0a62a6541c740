"""One self-contained HTML file: pictures inside, no scripts, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from dinov2_noise import __version__
from dinov2_noise.files import atomic_path

TEMPLATE = "report.html.jinja"
STYLESHEET = "report.css"

_NUMBER = re.compile(r"[-+−±]?\d[\d.,]*\s*(%|dB|s|min|h|d|MiB|GiB|[GTPE]FLOPs)?(\s*(±|\[|\(|to [-+−\d]).*)?|[-–—∞]|")


@dataclass(frozen=True)
class Cell:
    """A table's cell with a ``badge`` behind its text: a short word that says what no colour alone should."""

    text: str
    badge: str = ""

    def __str__(self) -> str:
        return self.text


CellLike = str | Cell


@dataclass(frozen=True)
class Table:
    """Rows of plain text; the first column names the row.

    Attributes:
        groups: (number of the row before which it stands, text) of headings between rows.
        faint: numbers of rows that are no results themselves, such as floors.
        folded: shown only when its title is clicked; printed unfolded in no case.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[CellLike]]
    caption: str
    title: str = ""
    groups: Sequence[tuple[int, str]] = ()
    faint: Sequence[int] = ()
    folded: bool = False
    kind: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"each row of a table needs {len(self.columns)} cells: {', '.join(self.columns)}")

    def numeric(self) -> list[bool]:
        """Whether a column holds nothing but numbers (with unit or interval), and is set flush right."""
        return [
            all(_NUMBER.fullmatch(str(row[index]).strip()) for row in self.rows) for index in range(len(self.columns))
        ]

    def cells(self) -> list[list[Cell]]:
        """All rows, each cell with its badge."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    def headings(self) -> Mapping[int, str]:
        """The groups' headings by the row they stand above."""
        return dict(self.groups)


@dataclass(frozen=True)
class FigureBlock:
    """A PNG or WebP drawn at twice the width it is shown at, as :mod:`dinov2_noise.report.figures` draws them.

    ``is_chart``: lines and text on white, which a dark page may show with its lightness turned round; photographs and
    colour scales keep their colours. ``narrow``: the same drawn for a phone's width, None to let it be scrolled.
    """

    title: str
    picture: bytes
    caption: str
    alt: str
    is_chart: bool = False
    narrow: bytes | None = None
    kind: ClassVar[str] = "figure"

    @property
    def uri(self) -> Markup:
        """The picture as a ``data:`` address."""
        return _uri(self.picture)

    @property
    def narrow_uri(self) -> Markup:
        """The same for ``narrow``, empty where there is none."""
        return Markup() if self.narrow is None else _uri(self.narrow)

    def shown_size_px(self) -> tuple[int, int]:
        """Width and height on the page."""
        return _halved(self.picture)

    def narrow_size_px(self) -> tuple[int, int]:
        """The same for ``narrow``."""
        return _halved(self.narrow or self.picture)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Missing:
    """What a section cannot show, why, and the command that makes it."""

    text: str
    command: str = ""
    kind: ClassVar[str] = "missing"


Block = Table | FigureBlock | Text | Missing


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; ``key`` is its address on the page."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """All that is on the page; all text is plain text and is escaped.

    Attributes:
        title: heading and window title.
        summary: what was found; an empty line starts a new paragraph.
        facts: short name → value, shown under the summary.
        sections: in order; from three on the page has a table of contents.
        notes: how to read the numbers, one paragraph each.
        problems: what could not be read, named at the top.
    """

    title: str
    summary: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    problems: Sequence[str] = field(default_factory=tuple)

    def paragraphs(self) -> list[str]:
        """Of the summary."""
        return [paragraph.strip() for paragraph in re.split(r"\n\s*\n", self.summary) if paragraph.strip()]


def _uri(picture: bytes) -> Markup:
    kind = "webp" if picture[8:12] == b"WEBP" else "png"
    return Markup(f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii"))


def _halved(picture: bytes) -> tuple[int, int]:
    width, height = picture_size(picture)
    return width // 2, height // 2


def picture_size(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG or WebP.

    Raises:
        ValueError: the bytes are neither.
    """
    try:
        with Image.open(io.BytesIO(picture), formats=("PNG", "WEBP")) as image:
            return int(image.width), int(image.height)
    except UnidentifiedImageError as cause:
        raise ValueError("figures are PNG or WebP bytes") from cause


def write_page(path: Path, page: Page) -> None:
    """Write the report atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("dinov2_noise", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context: dict[str, Any] = {"page": page, "version": __version__, "stylesheet": STYLESHEET}
    html = environment.get_template(TEMPLATE).render(context)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="replace")  # odd bytes of file names
