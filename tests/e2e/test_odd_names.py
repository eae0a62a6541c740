"""Names, links and folders as disks have them: spaces, all kinds of letters, circles of links, read-only disks."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from helpers import mounted
from PIL import Image
from typer.testing import CliRunner

from dinov2_noise.cli import app
from dinov2_noise.errors import DinoNoiseError, MissingFolderError
from dinov2_noise.files import list_images, read_manifest
from dinov2_noise.noise import output_name
from neighbor2neighbor import UNet, save_checkpoint

NAMES = [
    *("with space/a b.png", "-dash/-x.png", "UPPER.PNG", "photo.JPG", "Mixed.Jpeg", "#?%[a]*.png", "a,b:c=d.png"),
    *(unicodedata.normalize(form, "é/Ångström.png") for form in ("NFC", "NFD")),
    *("line\nbreak.png", os.fsdecode(b"not-utf8-\xff.png"), "日本/画像.webp", "n" * 251 + ".png", "..dots.png"[1:]),
]
WRITERS = ("add-noise", "corrupt", "denoise apply", "denoise train")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Odd names, reached through a link, with links to an image, to a folder, to a folder above and to themselves."""
    root, elsewhere = tmp_path / "real", tmp_path / "elsewhere"
    for number, name in enumerate([*NAMES, elsewhere / "one.png", elsewhere / "folder" / "two.png"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
    (root / "link.png").symlink_to(elsewhere / "one.png")
    (root / "linked").symlink_to(elsewhere / "folder")
    (root / "with space" / "up").symlink_to(root)
    (root / "self").symlink_to("self")
    (elsewhere / "folder" / "back").symlink_to(root / "linked")
    (tmp_path / "source").symlink_to(root)
    return tmp_path / "source"


def command(name: str, source: Path, out: Path) -> list[str]:
    options = {
        "add-noise": ["--noise", "gauss50", "--workers", "1"],
        "corrupt": ["--corruptions", "contrast", "--severities", "1", "--size", "full", "--workers", "1"],
        "denoise apply": ["--weights", str(out.with_name("weights.pth")), "--device", "cpu"],
        "denoise train": [
            "--steps=1",
            "--batch-size=2",
            "--crop=64",
            "--n-feature=4",
            "--sample-every=0",
            "--device=cpu",
        ],
    }[name]
    if name == "denoise apply":
        save_checkpoint(out.with_name("weights.pth"), UNet(n_feature=4, generator=torch.Generator().manual_seed(0)))
    return [*name.split(), *options, "--", str(source), str(out)]


def run(*arguments: str) -> None:
    CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)


def test_the_listing_meets_each_image_once(source: Path) -> None:
    expected = [*NAMES, "link.png", "linked/two.png"]
    assert list_images(source) == sorted(name for name in expected if not name.startswith("."))
    assert len(expected) == len(NAMES) + 2


@pytest.mark.parametrize("name", WRITERS)
def test_odd_names_come_through(source: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "-out ü"
    run(*command(name, source, out))
    assert read_manifest(out)["complete"]
    names = list_images(source)
    assert read_manifest(out)["images"] == len(names)
    if name != "denoise train":
        images = out / "contrast/1" if name == "corrupt" else out
        assert list_images(images) == sorted(map(output_name, names))
    run(*command(name, source, out))
    assert read_manifest(out)["complete"]


def test_a_report_on_odd_names(source: Path, tmp_path: Path) -> None:
    run("check", "--workers", "1", "--json", str(tmp_path / "report.json"), "--", str(source))
    assert str(len(list_images(source))) in json.dumps(json.loads((tmp_path / "report.json").read_text()))


@pytest.mark.parametrize("name", WRITERS)
def test_a_bad_image_of_an_odd_name_is_left_out_and_listed(source: Path, tmp_path: Path, name: str) -> None:
    bad = source / os.fsdecode(b"bad-\xfe.png")
    bad.write_bytes(b"no image")
    before, *rest = command(name, source, tmp_path / "out")
    with pytest.raises(DinoNoiseError, match="1 of 16 images failed"):
        run(before, *rest)
    place = rest.index("--")
    run(before, *rest[:place], "--skip-bad", "1", *rest[place:])
    manifest = read_manifest(tmp_path / "out")
    assert manifest["complete"]
    assert [Path(path).name for path in manifest["skipped"]] == [bad.name]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """A function that shows a folder at another place, where nothing can be written; the rights are an
    administrator's.
    """
    with ExitStack() as mounts:

        def show(folder: Path) -> Path:
            place = Path(mkdtemp(dir=tmp_path))
            mounts.enter_context(mounted("-o", "bind,ro", folder, place))
            return place

        yield show


@pytest.mark.parametrize("name", WRITERS)
def test_a_source_is_only_read_and_a_read_only_destination_is_named(
    source: Path, tmp_path: Path, name: str, read_only: Callable[[Path], Path]
) -> None:
    shown = read_only(source.resolve())
    run(*command(name, shown, tmp_path / "out"))
    assert read_manifest(tmp_path / "out")["complete"]
    (tmp_path / "empty").mkdir()
    closed = read_only(tmp_path / "empty")
    save_checkpoint(tmp_path / "weights.pth", UNet(n_feature=4))
    arguments = [
        word.replace(f"{closed}/weights.pth", str(tmp_path / "weights.pth")) for word in _for(name, shown, closed)
    ]
    with pytest.raises(
        DinoNoiseError, match=r"cannot write .*: Read-only file system\. Allow writing there and run the"
    ):
        run(*arguments)


def _for(name: str, source: Path, closed: Path) -> list[str]:
    """The command that writes into ``closed``, with weights that lie elsewhere."""
    words = command(name, source, closed.with_name("x"))
    return [*words[:-1], str(closed / "out")]


@pytest.mark.parametrize("name", WRITERS)
def test_a_destination_below_a_file_is_named(source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    words = command(name, source, tmp_path / "x")
    with pytest.raises(
        DinoNoiseError, match=r"cannot write .*file/out.*: Not a directory\. A part of this path is a file"
    ):
        run(*words[:-1], str(tmp_path / "file" / "out"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_in_the_place_of_a_folder_is_named(source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingFolderError, match=r"file is a file"):
        run(*command(name, tmp_path / "file", tmp_path / "out"))


def test_links_that_lead_nowhere_but_round_hold_no_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    with pytest.raises(MissingFolderError, match="holds no images"):
        list_images(tmp_path)


def test_a_folder_may_be_linked_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "b").symlink_to("a")
    assert list_images(tmp_path) == ["a/x.png", "b/x.png"]
