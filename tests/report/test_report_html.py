"""The HTML file: escaped, complete in itself, and with every figure inside."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dinov2_noise.report.html import Cell, FigureBlock, Missing, Page, Section, Table, Text, picture_size, write_page


def png(width: int, height: int, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(40, 20, "red"), png(60, 30, "blue")]


class Parsed(HTMLParser):
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
    table = Table(
        ["arm", "k-NN", "way"],
        [["NCT", Cell("32.0 [28.1, 36.2]", "best"), "2 <stages>"], ["noisy", "26.6", "1"]],
        "Top-1",
        title="Results & more",
        groups=[(1, "on <other> images")],
        faint=[1],
    )
    folded = Table(["setting", "value"], [["a.b", "1"]], "All", title="Folded", folded=True)
    figures = [FigureBlock(f"Figure {i}", PICTURES[i], "caption <i>", f'alt "{i}"', is_chart=i == 0) for i in range(2)]
    narrow = FigureBlock("Narrow", PICTURES[0], "", "two widths", narrow=PICTURES[1])
    sections = [
        Section("results", "Results", [table, Text("plain <u>text</u>"), folded]),
        Section("figures", "Figures", [*figures, narrow]),
        Section("missing", "Missing", [Missing("not here <em>", "dinov2-noise report --help > x")]),
    ]
    page = Page(
        title="Noise & <b>more</b>",
        summary="First paragraph.\n\nSecond <script>alert(1)</script> paragraph.",
        facts={"Noise": "gauss100 <5>", "Network": "ViT-tiny/16"},
        sections=sections,
        notes=["See https://example.org/?a=1&b=2"],
        problems=["file <x> is damaged"],
    )
    write_page(path, page)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_text_is_escaped(html: str) -> None:
    page = Parsed(html)
    assert not [tag for name in ("script", "b", "i", "u", "em", "stages", "other", "x") for tag in page.all(name)]
    texts = ("Noise & <b>more</b>", "<script>alert(1)</script>", "gauss100 <5>", "2 <stages>", "caption <i>")
    for text in (
        *texts,
        "plain <u>text</u>",
        "on <other> images",
        "not here <em>",
        "--help > x",
        "file <x> is damaged",
    ):
        assert text in page.text
    assert "<title>Noise &amp; &lt;b&gt;more&lt;/b&gt;</title>" in html


def test_figures_are_inside_with_alternative_text_and_size(html: str) -> None:
    images = Parsed(html).all("img")
    assert [image["alt"] for image in images] == ['alt "0"', 'alt "1"', "two widths"]
    assert [(image["width"], image["height"]) for image in images] == [("20", "10"), ("30", "15"), ("20", "10")]
    assert [image.get("class") for image in images] == ["chart", None, "fitting"]
    for image, picture in zip(images, PICTURES, strict=False):
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == picture


def test_a_phone_gets_the_narrow_picture(html: str) -> None:
    (source,) = Parsed(html).all("source")
    assert base64.b64decode(str(source["srcset"]).split(",")[1]) == PICTURES[1]
    assert (source["media"], source["width"], source["height"]) == ("(max-width: 40rem)", "30", "15")


def test_nothing_is_fetched_from_elsewhere(html: str) -> None:
    page = Parsed(html)
    keys = ("src", "srcset", "href")
    addresses = [str(value) for _, attributes in page.tags for key, value in attributes.items() if key in keys]
    assert len(addresses) == 8
    assert all(address.startswith(("data:image/png", "#")) for address in addresses)
    assert not page.all("link")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_page_is_semantic_and_adapts(html: str) -> None:
    page = Parsed(html)
    names = ("h1", "h2", "main", "table", "figure", "figcaption", "dt", "nav", "details", "aside")
    assert [len(page.all(tag)) for tag in names] == [1, 5, 1, 2, 3, 2, 2, 1, 1, 1]
    assert len([p for p in page.all("p") if p.get("class") == "lead"]) == 2
    scopes = [th.get("scope") for th in page.all("th")]
    assert scopes == ["col"] * 3 + ["row", "rowgroup", "row"] + ["col"] * 2 + ["row"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {v for _, a in page.tags for k, v in a.items() if k in ("aria-labelledby", "aria-describedby")}
    links = {str(a["href"])[1:] for a in page.all("a")}
    assert labels | links <= set(ids)
    assert links == {"results", "figures", "missing", "notes"}
    assert "prefers-color-scheme: dark" in html
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert len([tr for tr in page.all("tr") if tr.get("class") == "faint"]) == 1
    assert '32.0 [28.1, 36.2] <span class="badge">best</span>' in html


def test_columns_of_numbers_are_set_flush_right() -> None:
    rows = [["NC", "32.0 [28.1, 36.2]", "1.5 s", "12.3 dB", "NC", "–", "–"]]
    rows += [["NCT", "100", "∞", "-3", "3 of 4", "7.1 %", "45.6 to 54.3"]]
    assert Table(list("abcdefg"), rows, "").numeric() == [False, True, True, True, False, True, True]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells: arm, k-NN"):
        Table(["arm", "k-NN"], [["NCT"]], "")
    with pytest.raises(ValueError, match="PNG"):
        picture_size(b"GIF89a")


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    broken = Section("x", "x", [FigureBlock("title", b"no picture", "", "")])
    with pytest.raises(ValueError, match="PNG"):
        write_page(path, Page("t", "", {}, [broken]))
    assert path.read_text(encoding="utf-8") == "old"
