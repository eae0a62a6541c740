"""Every command in the pages is one: known to the program it names, and run by a test or marked with what it needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from pages.blocks import ROOT, SCARCE, Block, Command, blocks, commands, pages
from pages.checks import PageError, check, check_dataset_string
from pages.words import programs

PAGES = pages()
_STARTS = re.compile(r"^(\$ )?(dinov2-noise|python3?|make|pip|torchrun) \S", flags=re.MULTILINE)
_INLINE = re.compile(r"`(dinov2-noise [a-z][^`]*)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.upstream
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_known_to_their_programs(page: Path) -> None:
    for command in commands(page):
        for words in programs(command.text):
            try:
                check(words)
            except PageError as wrong:
                pytest.fail(f"{command.place}: `{' '.join(words)}`: {wrong}")


@pytest.mark.upstream
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_within_a_sentence_are_known_too(page: Path) -> None:
    for text in _INLINE.findall(page.read_text(encoding="utf-8")):
        for words in programs(text):
            try:
                check(words)
            except PageError as wrong:
                if not wrong.is_incomplete:  # a sentence may name half a command
                    pytest.fail(f"{name_of(page)}: `{text}`: {wrong}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_shell_where_they_hold_commands(page: Path) -> None:
    for block in blocks(page):
        place = f"{name_of(page)}:{block.line}"
        if block.language == "text":
            assert not _STARTS.search(block.text), f"{place}: a command in a block of text"
        if block.language in ("", "bash", "sh"):
            checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
            assert checked.returncode == 0, f"{place}: {checked.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_dataset_strings_in_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page):
        for line in block.lines if block.language == "text" else ():
            check_dataset_string(line.strip())


@pytest.mark.parametrize("command", [c for page in PAGES for c in commands(page) if c.needs], ids=lambda c: c.place)
def test_a_mark_names_something_that_is_not_here(command: Command) -> None:
    assert any(thing in command.needs for thing in SCARCE), f"{command.place}: needs {command.needs}"


def _python_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", _python_blocks(), ids=lambda b: f"{b.page.stem}-{b.line}")
def test_python_in_pages_compiles_and_imports_what_exists(block: Block) -> None:
    compile(block.text, f"{block.page}:{block.line}", "exec")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("dinov2-noise denoise trian NOISY OUT", "trian"),
        ("dinov2-noise denoise train NOISY", "output"),
        ("dinov2-noise denoise train NOISY OUT --stepz 3", "stepz"),
        ("dinov2-noise index photos more", "unexpected"),
        ("dinov2-noise train nct_labtop --output OUT", "nct_labtop"),
        ("dinov2-noise train nct --output OUT train.batch_size=3", "batch_size"),
        ("dinov2-noise train nct --output OUT curriculum.stages.1.epoch=3", "epoch"),
        ("dinov2-noise run configs/no-such.yaml", "no-such"),
        ("dinov2-noise run configs/small.yaml nois=gauss100", "nois"),
        ("dinov2-noise check ImageFolder:rot=R", "rot"),
        ("make dmo", "dmo"),
        ("dinov-noise check R", "dinov-noise"),
        ("python benchmarks/loader.py --folder R", "--folder"),
    ],
)
@pytest.mark.upstream
def test_wrong_commands_are_found(text: str, wrong: str) -> None:
    with pytest.raises(PageError, match=re.escape(wrong)):
        check(programs(text)[0])


@pytest.mark.upstream
def test_wrong_options_of_upstreams_scripts_are_found() -> None:
    with pytest.raises(PageError, match="does not take"):
        check(["python", "-m", "dinov2.eval.knn", "--config-fyle", "c", "--pretrained-weights", "w"])
    with pytest.raises(PageError, match="epohcs"):
        check(
            ["python", "-m", "dinov2.train.train", "--config-file", "dinov2_noise/configs/nct.yaml", "optim.epohcs=3"]
        )
