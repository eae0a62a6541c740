"""The page in a real browser: no sideways scrolling on a phone, nothing asked of the network, nothing blocked."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import find_chromium, open_browser
from report_files import record, summary, write_monitor, write_records, write_run

from dinov2_noise.report.compose import Request, write

_WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&
    e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + '.' + e.className)"""
_IMAGES = "[...document.images].map(i => [i.complete, i.naturalWidth > 0, i.alt.length > 0])"


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here")
def test_the_page_fits_a_phone_and_asks_for_nothing(tmp_path: Path) -> None:
    name = "an-arm-with-a-rather-long-name-without-any-space-in-it-at-all"
    for run in ("nct", name):
        write_monitor(write_run(tmp_path / "work" / run))
    dataset = f"ImageNet:split=VAL:root=/a/{name}"
    write_records(tmp_path / "work", [record(arm, 0.5, dataset=dataset) for arm in ("nct", name)])
    summary(name, {"clean": 80, "gauss50": 60, "fog/1": 70}).save(tmp_path / "work" / "corruptions")
    page_file = tmp_path / "page.html"
    write(Request([tmp_path / "work"], pictures=False), page_file, lambda _: None)
    program = find_chromium()
    assert program is not None
    with open_browser(program, tmp_path / "profile") as page:
        backgrounds = []
        for width, dark in ((390, False), (390, True), (1280, False)):
            page.show(page_file, width, 800, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(_WIDE) == []
            images = page.evaluate(_IMAGES)
            assert len(images) > 5
            assert all(all(image) for image in images)
            asked = [address for address in page.requested() if not address.startswith("data:")]
            assert asked == [page_file.as_uri()]
            assert page.complaints() == []
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert backgrounds == ["rgb(246, 247, 249)", "rgb(20, 23, 28)", "rgb(246, 247, 249)"]
