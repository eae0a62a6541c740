"""Heat maps and curves show the numbers they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dinov2_noise.report import corruption_figures

VALUES = {(name, severity): 0.9 - 0.1 * severity for name in ("fog", "glass_blur") for severity in (1, 2, 3, 4, 5)}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collects the figures behind the PNGs."""
    found: list[Figure] = []
    original = corruption_figures.figure_as_png

    def png(draw, *args, **kwargs):
        return original(lambda figure: (draw(figure), found.append(figure)), *args, **kwargs)

    monkeypatch.setattr(corruption_figures, "figure_as_png", png)
    return found


def _texts(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def test_heat_maps_share_rows_and_colours_and_leave_gaps_white(drawn: list[Figure]) -> None:
    other = {place: value / 2 for place, value in VALUES.items() if place != ("fog", 3)}
    png = corruption_figures.heat_maps({"a": VALUES, "b": other})
    assert Image.open(io.BytesIO(png)).width <= 1800
    (figure,) = drawn
    assert _texts(figure, 0) == ["80", "70", "60", "50", "40"] * 2
    assert _texts(figure, 1) == ["40", "35", "–", "25", "20", "40", "35", "30", "25", "20"]
    for axes in figure.axes[:2]:
        assert axes.images[0].get_clim() == (0.0, pytest.approx(80))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["fog", "glass blur"]
    assert np.isnan(figure.axes[1].images[0].get_array().filled(np.nan)).sum() == 1


def test_a_noise_is_a_row_of_one_value_below_the_corruptions(drawn: list[Figure]) -> None:
    noises = {"a": {"gauss50": 0.95, "gauss255": 0.2}, "b": {"gauss50": 0.5}}
    corruption_figures.heat_maps({"a": VALUES, "b": VALUES}, noises=noises, clean={"b": 0.9})
    (figure,) = drawn
    assert _texts(figure, 0)[-2:] == ["95", "20"]
    assert _texts(figure, 1)[-2:] == ["50", "–"]
    assert figure.axes[0].texts[-1].get_position() == (2, 3)
    shown = figure.axes[0].images[0].get_array()
    assert (shown[2] == 95).all()
    assert (shown[3] == 20).all()
    assert figure.axes[0].images[0].get_clim() == (0.0, pytest.approx(95))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["fog", "glass blur", "gauss50", "gauss255"]


def test_a_difference_is_white_at_zero(drawn: list[Figure]) -> None:
    corruption_figures.difference_map({("fog", 1): 0.2, ("fog", 2): -0.1, ("fog", 3): 0.0}, title="b minus a")
    image = drawn[0].axes[0].images[0]
    assert image.get_clim() == (pytest.approx(-20), pytest.approx(20))
    assert _texts(drawn[0], 0) == ["+20", "−10", "0"]
    assert min(image.cmap(image.norm(0.0))[:3]) > 0.95
    blue, red = (image.cmap(image.norm(value)) for value in (20.0, -20.0))
    assert blue[2] > blue[0]
    assert red[0] > red[2]


def test_curves_begin_at_the_clean_image(drawn: list[Figure]) -> None:
    corruption_figures.severity_curves({"a": VALUES, "b": VALUES}, clean={"a": 0.85})
    fog = drawn[0].axes[0]
    assert fog.get_title() == "fog"
    assert list(fog.lines[0].get_xdata()) == [0, 1, 2, 3, 4, 5]
    assert list(fog.lines[0].get_ydata()) == pytest.approx([85, 80, 70, 60, 50, 40])
    assert list(fog.lines[1].get_xdata()) == [1, 2, 3, 4, 5]
    assert fog.get_ylim()[1] > 85
    assert [axes.get_visible() for axes in drawn[0].axes] == [True, True, False, False, False]


def test_corruptions_beyond_the_mce_stand_below_a_gap(drawn: list[Figure]) -> None:
    values = {("spatter", 1): 0.1, ("fog", 1): 0.2, ("snow", 1): 0.3}
    corruption_figures.heat_maps({"a": values}, clean={"a": 0.456}, probe="20-NN")
    axes, bar = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fog", "snow", "spatter"]
    (gap,) = axes.lines
    assert list(gap.get_ydata()) == [1.5, 1.5]
    assert axes.get_title() == "a\nclean 45.6"
    assert bar.get_ylabel() == "top-1 accuracy (%), 20-NN"


def test_names_are_shown_whatever_their_letters(drawn: list[Figure]) -> None:
    names = ["_private", "$x^", "a long name of a model", "d", "e"]
    corruption_figures.severity_curves(dict.fromkeys(names, VALUES), clean={})
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [" _private", *names[1:]]
    corruption_figures.heat_maps(dict.fromkeys(names, VALUES))
    assert [axes.get_title() for axes in drawn[1].axes[1:3]] == ["$x^", "a long name\nof a model"]


def test_no_model_and_no_cells_are_refused() -> None:
    for models in ({}, {"a": {}}):
        with pytest.raises(ValueError, match="at least one"):
            corruption_figures.heat_maps(models)
