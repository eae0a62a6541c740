"""The HTML file: escaped, complete in itself, and with every figure inside."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dinov2_noise.report.html import FigureBlock, Table, png_size, write_report


def png(width: int, height: int, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(40, 20, "red"), png(60, 30, "blue")]


class Page(HTMLParser):
    """All start tags with their attributes, and the text outside the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def html(tmp_path: Path) -> str:
    path = tmp_path / "new" / "report.html"
    write_report(
        path,
        title="Noise & <b>more</b>",
        summary="First paragraph.\n\nSecond <script>alert(1)</script> paragraph.",
        facts={"Noise": "gauss100 <5>", "Network": "ViT-tiny/16"},
        table=Table(
            ["arm", "k-NN", "way"], [["NCT", "32.0 [28.1, 36.2]", "2 <stages>"], ["noisy", "26.6", "1"]], "Top-1"
        ),
        figures=[FigureBlock(f"Figure {i}", PICTURES[i], "caption <i>", f'alt "{i}"') for i in range(2)],
        notes=["See https://example.org/?a=1&b=2"],
    )
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_text_is_escaped(html: str) -> None:
    page = Page(html)
    assert not page.all("script") + page.all("b") + page.all("i")
    for text in ("Noise & <b>more</b>", "<script>alert(1)</script>", "gauss100 <5>", "2 <stages>", "caption <i>"):
        assert text in page.text
    assert "<title>Noise &amp; &lt;b&gt;more&lt;/b&gt;</title>" in html


def test_figures_are_inside_with_alternative_text_and_size(html: str) -> None:
    images = Page(html).all("img")
    assert [image["alt"] for image in images] == ['alt "0"', 'alt "1"']
    assert [(image["width"], image["height"]) for image in images] == [("20", "10"), ("30", "15")]
    for image, picture in zip(images, PICTURES, strict=True):
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == picture


def test_nothing_is_fetched_from_elsewhere(html: str) -> None:
    page = Page(html)
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(addresses) == 2
    assert all(address is not None and address.startswith("data:image/png") for address in addresses)
    assert not page.all("link")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_page_is_semantic_and_adapts(html: str) -> None:
    page = Page(html)
    assert [len(page.all(tag)) for tag in ("h1", "h2", "main", "table", "figure", "figcaption", "dt")] == [
        1,
        4,
        1,
        1,
        2,
        2,
        2,
    ]
    assert len([p for p in page.all("p") if p.get("class") == "lead"]) == 2
    assert [th.get("scope") for th in page.all("th")] == ["col"] * 3 + ["row"] * 2
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    labels = {v for _, a in page.tags for k, v in a.items() if k in ("aria-labelledby", "aria-describedby")}
    assert labels <= names
    assert "prefers-color-scheme: dark" in html
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_columns_of_numbers_are_set_flush_right() -> None:
    rows = [["NC", "32.0 [28.1, 36.2]", "1.5 s", "12.3 dB", "NC", "–"], ["NCT", "100", "∞", "-3", "3 of 4", "7.1 %"]]
    assert Table(list("abcdef"), rows, "").numeric() == [False, True, True, True, False, True]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells: arm, k-NN"):
        Table(["arm", "k-NN"], [["NCT"]], "")
    with pytest.raises(ValueError, match="PNG"):
        png_size(b"GIF89a")


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    broken = FigureBlock("title", b"no picture", "", "")
    with pytest.raises(ValueError, match="PNG"):
        write_report(path, title="t", summary="", facts={}, table=Table([], [], ""), figures=[broken], notes=[])
    assert path.read_text(encoding="utf-8") == "old"
