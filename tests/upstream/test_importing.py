"""Seams attach while modules are imported, once, and a broken one fails every time. Shown on a package of this test's
own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dinov2_noise.errors import PluginError
from dinov2_noise.upstream.importing import SeamFinder, attach_once, install, is_attached
from dinov2_noise.upstream.signatures import expect_signature


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``victim.leaf`` re-exported by ``victim``; ``good_seam`` and ``broken_seam`` to attach to it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "__init__.py").write_text("from .leaf import value\n")
    (tmp_path / "victim" / "leaf.py").write_text(
        "import sys\nduring = 'lent' in sys.modules\ndef value(x, y=1):\n    return 'original'\n"
    )
    (tmp_path / "good_seam.py").write_text(
        "import sys, types\nfrom contextlib import contextmanager\ncalls = []\n"
        "@contextmanager\ndef surround():\n"
        "    sys.modules['lent'] = types.ModuleType('lent')\n    yield\n    del sys.modules['lent']\n"
        "def attach(module):\n    calls.append(module.__name__)\n    module.value = lambda x, y=1: 'ours'\n"
    )
    (tmp_path / "broken_seam.py").write_text("def attach(module):\n    raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before, path_before = set(sys.modules), list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = path_before
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _find(seam: str) -> SeamFinder:
    finder = SeamFinder({"victim.leaf": seam})
    sys.meta_path.insert(0, finder)
    return finder


def test_attaches_before_the_package_re_exports(package: Path) -> None:
    _find("good_seam")
    victim = importlib.import_module("victim")
    assert victim.value(1) == "ours"
    assert importlib.import_module("good_seam").calls == ["victim.leaf"]


def test_surround_holds_while_upstream_runs_and_ends_after(package: Path) -> None:
    _find("good_seam")
    assert importlib.import_module("victim.leaf").during is True
    assert "lent" not in sys.modules


def test_attaching_twice_attaches_once(package: Path) -> None:
    _find("good_seam")
    leaf = importlib.import_module("victim.leaf")
    seam = importlib.import_module("good_seam")
    replaced = leaf.value
    attach_once(leaf, seam)
    assert leaf.value is replaced
    assert seam.calls == ["victim.leaf"]
    assert is_attached(leaf)


def test_a_broken_seam_fails_every_import(package: Path) -> None:
    _find("broken_seam")
    for _ in range(3):
        with pytest.raises(PluginError, match=r"broken_seam could not attach to victim\.leaf.*boom.*doctor"):
            importlib.import_module("victim.leaf")
        assert "victim.leaf" not in sys.modules


def test_the_module_keeps_its_own_loader(package: Path) -> None:
    _find("good_seam")
    leaf = importlib.import_module("victim.leaf")
    assert type(leaf.__loader__).__name__ == "SourceFileLoader"
    assert leaf.__spec__.loader is leaf.__loader__


def test_install_refuses_to_come_too_late(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, SeamFinder)])
    monkeypatch.setitem(sys.modules, "dinov2.late", sys)
    with pytest.raises(PluginError, match=r"dinov2\.late.*dinov2-noise patch"):
        install({"dinov2.late": "good_seam"})


def test_install_twice_installs_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, SeamFinder)])
    assert install({"victim.leaf": "good_seam"}) is install({"victim.leaf": "good_seam"})
    assert sum(isinstance(finder, SeamFinder) for finder in sys.meta_path) == 1


def test_changed_signature_prints_both(package: Path) -> None:
    victim = importlib.import_module("victim.leaf")
    assert expect_signature(victim, "value", lambda x, y=2: None) is victim.value
    with pytest.raises(PluginError) as caught:
        expect_signature(victim, "value", lambda x, z=1: None)
    assert "found:       (x, y=1)" in str(caught.value)
    assert "written for: (x, z=1)" in str(caught.value)


@pytest.mark.parametrize("written_for", [lambda x, y: None, lambda x, *, y=1: None, lambda x: None])
def test_kind_and_optionality_count(package: Path, written_for: object) -> None:
    victim = importlib.import_module("victim.leaf")
    with pytest.raises(PluginError, match="another signature"):
        expect_signature(victim, "value", written_for)  # type: ignore[arg-type]


def test_missing_name_is_an_error(package: Path) -> None:
    victim = importlib.import_module("victim.leaf")
    with pytest.raises(PluginError, match="no callable 'absent'"):
        expect_signature(victim, "absent", lambda: None)
