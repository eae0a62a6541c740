"""``dinov2-noise report``: one file, exit statuses, what is told on standard error."""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path

import pytest
from report_files import entry, record, summary, write_monitor, write_records, write_run
from typer.testing import CliRunner, Result

from dinov2_noise.cli import app
from dinov2_noise.errors import CheckpointError, ConfigError, MissingFolderError, WriteError

_REFERENCE = re.compile(r"""(?:src|srcset|href|action|data)\s*=\s*["'](?!data:|#)|url\(|@import|<script|<link""")


def _report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments), "--no-pictures"])


def _folder(path: Path) -> Path:
    """Two finished runs, one that is not, records of two seeds, a benchmark."""
    for name in ("nct", "noisy"):
        write_monitor(write_run(path / "runs" / name))
    write_run(path / "runs" / "begun", entries=[entry(0), entry(10)])
    values = (("nct", 0.8), ("noisy", 0.5))
    write_records(path, [record(arm, value + seed / 50, seed) for arm, value in values for seed in (0, 1)])
    summary("nct", {"clean": 80, "gauss50": 60, "fog/1": 70}).save(path / "corruptions")
    return path


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Of that folder, with a damaged record in it: what the command said, and the page."""
    folder = _folder(tmp_path_factory.mktemp("report") / "work")
    (folder / "records" / "broken.json").write_text("{")
    output = folder.parent / "new" / "page.html"
    return _report(folder, "--output", output), output


def test_one_self_contained_file_with_every_section(reported: tuple[Result, Path]) -> None:
    result, output = reported
    assert result.exit_code == 0, result.output
    html = output.read_text(encoding="utf-8")
    keys = ("problems", "runs", "seen", "results", "curves", "noise", "corruptions", "maps", "neighbours", "costs")
    assert re.findall(r'<h2 id="([^"]*)"', html) == [*keys, "notes"]
    assert not _REFERENCE.search(html)
    assert html.count("data:image/png;base64,") >= 8
    assert "begun (unfinished: 11 of 50 iterations)" in html
    assert "nct 81.0\u00a0% ± 1.4 over 2 seeds" in html
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]


def test_damage_is_named_on_the_page_and_on_standard_error(reported: tuple[Result, Path]) -> None:
    result, output = reported
    assert "warning:" in result.stderr
    assert "broken.json" in result.stderr
    html = output.read_text(encoding="utf-8")
    assert "Not everything could be read" in html
    assert "broken.json" in html


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    write_run(tmp_path / "<img src=x onerror=alert(1)>", entries=[])
    name = '<script>"a"</script>&'
    write_records(tmp_path, [record(name, 0.5), record("b", 0.4), record("$x_1$", 0.3)])
    result = _report(tmp_path, "--output", tmp_path / "page.html", "--title", "<b>title</b>")
    assert result.exit_code == 0, result.output
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<img src=x|<b>", html)
    assert "&lt;script&gt;" in html
    assert "<title>&lt;b&gt;title&lt;/b&gt;</title>" in html


def test_contradicting_records_end_in_one_error_and_leave_no_page(tmp_path: Path) -> None:
    write_records(tmp_path / "one", [record("nct", 0.5)])
    write_records(tmp_path / "other", [record("nct", 0.7)])
    result = _report(tmp_path / "one", tmp_path / "other", "--output", tmp_path / "page.html")
    assert isinstance(result.exception, CheckpointError)
    assert str(tmp_path / "one" / "records" / "0-0.json") in str(result.exception)
    assert str(tmp_path / "other" / "records" / "0-0.json") in str(result.exception)
    assert not (tmp_path / "page.html").exists()


def test_nothing_to_show_and_options_without_effect_are_errors(tmp_path: Path) -> None:
    assert isinstance(_report(tmp_path).exception, MissingFolderError)
    assert isinstance(_report(tmp_path, "--noise", "gauss50").exception, ConfigError)
    assert isinstance(_report(tmp_path, "--candidates", "1").exception, ConfigError)
    assert isinstance(_report(tmp_path, "--output", tmp_path).exception, ConfigError)
    locked = _report(tmp_path, "--output", "/proc/new/page.html").exception  # also root may not write there
    assert isinstance(locked, WriteError)
    assert "cannot write /proc/new/page.html" in str(locked)
    (tmp_path / "file").write_text("")
    assert "file is a file" in str(_report(tmp_path, "--output", tmp_path / "file" / "page.html").exception)
    for option in (("--images", tmp_path / "gone"), ("--clean", tmp_path / "gone")):
        asked = CliRunner().invoke(app, ["report", str(tmp_path), *map(str, option)])
        assert isinstance(asked.exception, MissingFolderError)
        assert option[0] in str(asked.exception)
    for option in (("--noise", "gaus50"), ("--device", "cuda:x")):
        assert isinstance(CliRunner().invoke(app, ["report", str(tmp_path), *option]).exception, ValueError)


def test_a_run_alone_without_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address) or False)
    output = tmp_path / "page.html"
    result = _report(write_run(tmp_path / "nct", entries=[]), "--output", output, "--open")
    assert result.exit_code == 0
    assert asked == [output.as_uri()]
    assert f"no browser can be opened here: open {output}" in result.stderr
    html = output.read_text(encoding="utf-8")
    for command in ("evaluate linear", "evaluate corruptions", "dinov2-noise train"):
        assert command in html
