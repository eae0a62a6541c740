"""Atomic files, listings and manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError, OutputFolderError, PairError
from dinov2_noise.files import OutputFolder, atomic_path, list_images, parse_shard, read_manifest


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
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("a/b.png", "truncated")))
    assert (str(error), error.path) == ("cannot use image a/b.png: truncated", Path("a/b.png"))
