"""What the figures show, pixel by pixel for the contact sheet, line by line for the charts."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dinov2_noise.evaluation.records import Record
from dinov2_noise.report import figures

RED, GREEN, BLUE, GRAY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (119, 120, 121)


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def box(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of all pixels of exactly this colour; they must fill the box."""
    ys, xs = np.nonzero((sheet == colour).all(axis=-1))
    left, top, width, height = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
    assert len(xs) == width * height
    return int(left), int(top), int(width), int(height)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collects the figures behind the PNGs."""
    found: list[Figure] = []
    original = figures.figure_as_png

    def png(draw, *args, **kwargs):
        return original(lambda figure: (draw(figure), found.append(figure)), *args, **kwargs)

    monkeypatch.setattr(figures, "figure_as_png", png)
    return found


def test_contact_sheet_enlarges_each_image_by_whole_pixels_in_its_place() -> None:
    big, small = (64, 64), (32, 32)
    rows = [
        [Image.new("RGB", big, RED), Image.new("RGB", small, GREEN)],
        [Image.new("RGB", big, BLUE), Image.new("RGB", (48, 48), GRAY)],
    ]
    sheet = pixels(figures.contact_sheet(["clean", "noisy (gauss100)"], rows, ["brick", "grass"]))
    red, green, blue, gray = (box(sheet, colour) for colour in (RED, GREEN, BLUE, GRAY))
    assert red[2:] == green[2:] == blue[2:]  # a crop of half the size fills its cell as well
    assert red[2] == red[3] == 64 * (red[2] // 64)
    assert gray[2:] == (48 * (red[2] // 48),) * 2
    assert (green[1], blue[0]) == (red[1], red[0])
    assert green[0] - red[0] - red[2] == blue[1] - red[1] - red[3] == 8
    assert abs((gray[0] + gray[2] / 2) - (green[0] + green[2] / 2)) <= 0.5  # in the middle of its cell
    assert sheet.shape[1] <= 2 * figures.SHOWN_WIDTH_PX


def test_contact_sheet_keeps_single_pixels_sharp() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sheet = pixels(figures.contact_sheet(["noisy"], [[Image.fromarray(noise)]], ["brick"]))
    factor = (sheet.shape[1] - (24 + 15 * 5) - 8) // 64
    left, top = sheet.shape[1] - 8 - 64 * factor, sheet.shape[0] - 8 - 64 * factor
    shown = sheet[top : top + 64 * factor, left : left + 64 * factor]
    assert np.array_equal(shown[::factor, ::factor], noise)
    assert np.array_equal(shown[factor - 1 :: factor, factor - 1 :: factor], noise)


def test_contact_sheet_keeps_cells_small_where_asked() -> None:
    row = [Image.new("RGB", (20, 20), RED), Image.new("RGB", (20, 20), GREEN)]
    sheet = pixels(figures.contact_sheet(["a", "b"], [row], ["x"], most_cell_px=70))
    assert box(sheet, RED)[2:] == (60, 60)


def test_contact_sheet_writes_its_labels(drawn: list[Figure]) -> None:
    figures.contact_sheet(["clean", "anchor\ntwin"], [[Image.new("L", (8, 8)), Image.new("RGBA", (8, 8))]], ["a $x$ b"])
    assert [text.get_text() for text in drawn[0].texts] == ["clean", "anchor\ntwin", "a $x$ b"]


def test_contact_sheet_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="image per column"):
        figures.contact_sheet(["clean", "noisy"], [[Image.new("RGB", (8, 8))]], ["brick"])


def accuracy_records() -> list[Record]:
    values = {"random": (0.236, 0.24), "NCT": (0.32, 0.388)}
    metrics = ("knn_top1", "linear_top1")
    return [Record(arm, m, v, 500, 0, "x") for arm, pair in values.items() for m, v in zip(metrics, pair, strict=True)]


def test_accuracy_chart_places_dots_intervals_and_floors(drawn: list[Figure]) -> None:
    records = accuracy_records()
    shown = pixels(figures.accuracy_chart(records, {"chance": 0.1, "mean colour": 0.222}))
    (panel,) = drawn[0].axes
    dots = [line for line in panel.lines if line.get_marker() not in ("None", "")]
    assert [dot.get_xdata()[0] for dot in dots] == [0.236, 0.24, 0.32, 0.388]
    assert [round(dot.get_ydata()[0]) for dot in dots] == [0, 0, 1, 1]
    bars = [
        tuple(line.get_xdata()) for line in panel.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2
    ]
    assert all(record.interval() in bars for record in records)
    texts = [text.get_text() for text in panel.texts]
    assert texts == ["23.6", "24.0", "32.0", "38.8", "mean colour 22.2 %", "chance 10.0 %"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["random", "NCT"]
    assert panel.get_ylim() == (1.5, -0.5)  # the first arm on top
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["k-NN", "linear probe"]
    # The left-most k-NN dot really is drawn left of the right-most one, in the colour of the first metric.
    xs = np.nonzero((shown == (0x00, 0x72, 0xB2)).all(axis=-1))[1]
    assert np.ptp(xs) > 100
    assert (shown[0, 0] == 255).all()


def test_names_of_floors_close_together_stand_above_each_other(drawn: list[Figure]) -> None:
    figures.accuracy_chart(accuracy_records(), {"chance": 0.1, "mean colour": 0.12})
    figures.accuracy_chart(accuracy_records(), {"chance": 0.1, "mean colour": 0.35})
    near, apart = ([text.get_position()[1] for text in f.axes[0].texts if "%" in text.get_text()] for f in drawn)
    assert near[1] - near[0] >= 15
    assert apart[1] == apart[0]


def test_figures_leave_matplotlib_as_they_found_it() -> None:
    before = dict(mpl.rcParams)
    figures.accuracy_chart(accuracy_records(), {})
    assert dict(mpl.rcParams) == before


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no records"):
        figures.accuracy_chart([], {"chance": 0.1})
