"""An upstream that has changed under us: the import stops, naming both signatures, every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import run_python

pytestmark = pytest.mark.upstream

TWICE = """
for attempt in range(2):
    try:
        import dinov2.data
    except Exception as error:
        print(attempt, type(error).__name__, error)
"""


def test_a_changed_signature_stops_every_import(copy_of_upstream: Callable[[bool], Path]) -> None:
    checkout = copy_of_upstream(True)
    loaders = checkout / "dinov2" / "data" / "loaders.py"
    text = loaders.read_text()
    before, after = (f"    {name}: int = 0,\n) -> Optional[Sampler]:" for name in ("advance", "skip"))
    assert before in text
    loaders.write_text(text.replace(before, after))
    done = run_python("-c", TWICE, path=(checkout,))
    for attempt in range(2):
        assert f"{attempt} PluginError dinov2.data.loaders._make_sampler has another signature" in done.stdout
    assert "skip: int = 0" in done.stdout
    assert "written for: (*, dataset, type=None, shuffle=False, seed=0, size=-1, advance=0)" in done.stdout
