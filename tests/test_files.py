"""Atomic files, listings and manifests."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError, OutputFolderError, PairError, WriteError
from dinov2_noise.files import (
    OutputFolder,
    atomic_path,
    is_finished,
    list_images,
    missing_outputs,
    parse_shard,
    read_manifest,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_files_are_no_images(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a" / "x.png") as temporary:
        temporary.write_bytes(b"1")
        assert temporary.suffix == ".png"
        with pytest.raises(MissingFolderError, match="holds no images"):
            list_images(tmp_path)
    assert list_images(tmp_path) == ["a/x.png"]


def test_listing_is_sorted_and_complete(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.jpeg", "a é/x y.JPEG", ".hidden/z.png", "notes.txt", "c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == ["a é/x y.JPEG", "b/10.jpeg", "b/2.PNG", "c.webp"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """As two shards do, on machines whose processes have the same number."""
    with atomic_path(tmp_path / "x.txt") as first, atomic_path(tmp_path / "x.txt") as second:
        first.write_text("1")
        second.write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_shards_are_i_of_n() -> None:
    assert (parse_shard("1/1"), parse_shard("2/8")) == ((1, 1), (2, 8))
    for text in ("0/2", "3/2", "1", "a/b", "-1/2", "1/2/3", "²/3", ""):
        with pytest.raises(ConfigError, match="is not i/n with i from 1 to n"):
            parse_shard(text)


def test_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"noisy folder .*absent does not exist"):
        list_images(tmp_path / "absent", what="noisy folder")


def test_same_job_continues_another_is_refused(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out", "add-noise", {"noise": "gauss50", "grid": (1, 2)})
    folder.open()
    assert read_manifest(folder.path)["complete"] is False
    folder.close(images=3)
    folder.open()
    assert (read_manifest(folder.path)["complete"], read_manifest(folder.path)["images"]) == (True, 3)
    folder.reopen()
    assert read_manifest(folder.path)["complete"] is False
    with pytest.raises(OutputFolderError, match="noise: there 'gauss50', now 'gauss100'"):
        OutputFolder(tmp_path / "out", "add-noise", {"noise": "gauss100", "grid": (1, 2)}).open()
    with pytest.raises(OutputFolderError, match="was written by `dinov2-noise add-noise`"):
        OutputFolder(tmp_path / "out", "denoise apply", {}).open()


def test_foreign_folder_and_broken_manifest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputFolderError, match="not empty and was not written by"):
        OutputFolder(tmp_path, "add-noise", {}).open()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(OutputFolderError, match="cannot read the manifest"):
        OutputFolder(tmp_path, "add-noise", {}).open()
    with pytest.raises(OutputFolderError, match="is a file"):
        OutputFolder(tmp_path / "thesis.txt", "add-noise", {}).open()


def test_pair_error_names_five_and_counts_the_rest() -> None:
    message = str(PairError.missing("denoised", [f"{i}.png" for i in range(8)], total=20))
    assert message.startswith("8 of 20 images have no denoised twin under denoised:")
    assert "4.png" in message
    assert "5.png" not in message
    assert "… and 3 more" in message


def test_image_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a/b.png", "truncated")))
    assert (str(error), error.path) == ("cannot use image a/b.png: truncated", Path("a/b.png"))


def test_a_writing_process_marks_its_temporary_file_and_a_killed_ones_is_deleted(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, "add-noise", {})
    folder.open()
    with atomic_path(tmp_path / "val" / "of us.png") as ours:
        ours.touch()
        number = str(os.getpid())
        assert f"-{number}-" in ours.name
        gone = ours.with_name(ours.name.replace(f"-{number}-", f"-{_gone_process()}-"))
        elsewhere, old = (ours.with_name(f".0{place}abcdef-1-12345678.partial.png") for place in (0, 1))
        older = ours.with_name(".x.12345678.partial.png")  # as versions before named them
        foreign = ours.with_name(".thesis.partial.png")
        for path in (gone, elsewhere, old, older, foreign):
            path.touch()
        for path in (old, older, foreign):
            os.utime(path, (time.time() - 90_000,) * 2)
        folder.open()
        assert {path.name for path in (tmp_path / "val").iterdir()} == {ours.name, elsewhere.name, foreign.name}
        gone.touch()
        assert missing_outputs(["val/a.jpg"], tmp_path, lambda name: name) == ["val/a.jpg"]
        assert not gone.exists()
        assert ours.exists()
    assert (tmp_path / "val" / "of us.png").exists()


def test_a_process_that_has_ended_and_is_not_asked_for_does_not_write(tmp_path: Path) -> None:
    """In some containers nobody asks for the workers of a killed process."""
    folder = OutputFolder(tmp_path, "add-noise", {})
    folder.open()
    with atomic_path(tmp_path / "x.png") as ours, subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        left = ours.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
        left.touch()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        os.kill(process.pid, 0)  # is known still
        folder.open()
        assert not left.exists()
        ours.touch()


def test_advice_is_for_the_file_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out" / "labels.txt"
    for named, advice in ((path, "Allow writing there"), (path.parent, "Allow writing"), ("/src/labels.txt", "Mend")):
        error = WriteError(path, PermissionError(errno.EACCES, "Permission denied", str(named)))
        assert f". {advice}" in str(error)
    assert "/src/labels.txt" in str(error)


def _gone_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_an_empty_output_is_not_done(tmp_path: Path) -> None:
    """It is what a machine that lost its power may leave of a file that was written just before."""
    for name, content in (("a/1.png", b"x"), ("a/2.png", b""), ("b/1.png", b"x")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a" / "3.png").symlink_to("nowhere")
    names = [f"{folder}/{number}.jpg" for folder in "abc" for number in (1, 2, 3)]
    expected = [name for name in names if name not in ("a/1.jpg", "b/1.jpg")]
    assert missing_outputs(names, tmp_path, lambda name: name.replace("jpg", "png")) == expected
    assert missing_outputs(names[:1], tmp_path / "absent", str) == names[:1]
    assert [is_finished(tmp_path / "a" / name) for name in ("1.png", "2.png", "3.png", "4.png")] == [True, *[False] * 3]


def test_what_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            WriteError, match=r"cannot write .*file/a/b\.png: Not a directory\. A part of this path is a file"
        ),
        atomic_path(tmp_path / "file" / "a" / "b.png"),
    ):
        pass
    path = tmp_path / ("n" * 256)
    with pytest.raises(WriteError, match=r"nnn: File name too long\. Shorten the name and run the same command again"):
        write_json(path, {})
    for number, advice in ((errno.ENOSPC, "Make room on its disk"), (errno.EACCES, "Allow writing there")):
        error = WriteError(path, OSError(number, os.strerror(number), str(tmp_path / ".x.partial")))
        assert str(error) == (
            f"cannot write {path}: {os.strerror(number)}. {advice} and run the same command again: finished files are "
            "kept"
        )
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.errno, again.path) == (str(error), number, path)
    other = WriteError(path, OSError(errno.EIO, "Input/output error", "/source.png"))
    assert "[Errno 5] Input/output error: '/source.png'. Mend that and run" in str(other)


def test_an_error_of_ours_within_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"^weights"), atomic_path(tmp_path / "x"):
        raise MissingFolderError("weights do not exist")


def test_a_path_that_is_not_utf8_comes_back_from_a_manifest(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    OutputFolder(tmp_path, "add-noise", {"source": name, "grid": "é"}).open()
    OutputFolder(tmp_path, "add-noise", {"source": name, "grid": "é"}).close(skipped=[name])
    assert read_manifest(tmp_path)["skipped"] == [name]
