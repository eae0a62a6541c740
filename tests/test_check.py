"""The command `check` on a made-up folder that has each defect: every line of the report."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from checked import looked, text_of
from helpers import SmallSet, run_python
from PIL import Image, ImageFilter

from dinov2_noise.check import Findings, check, record, write_lists
from dinov2_noise.check.command import as_printed, check_command, require_writable
from dinov2_noise.data import make
from dinov2_noise.decoding import parse_range
from dinov2_noise.errors import ConfigError, DatasetStringError, MissingFolderError, OutputFolderError, WriteError
from dinov2_noise.files import list_images
from dinov2_noise.noise import add_noise


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Smooth, coloured, and different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images in train, two in val, and one file of each sort of trouble."""
    root = tmp_path_factory.mktemp("checked") / "defects"
    for number in range(12):
        folder = root / ("train" if number < 10 else "val") / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
    cats, dogs = root / "train" / "cats", root / "train" / "dogs"
    shutil.copy(cats / "1.png", cats / "copy of 1.png")
    Image.open(dogs / "2.png").save(dogs / "2 again.bmp")
    shutil.copy(dogs / "4.png", root / "val" / "dogs" / "leak.png")
    whole = (cats / "3.png").read_bytes()
    (dogs / "cut.png").write_bytes(whole[: len(whole) // 2])
    (dogs / "empty.JPG").touch()
    (dogs / "text.webp").write_bytes(b"no image at all, but some text")
    picture(20).save(dogs / "photo.png", format="JPEG")
    picture(21, (40, 70)).save(dogs / "tiny.png")
    picture(22).convert("L").save(dogs / "gray.png")
    picture(23).convert("CMYK").save(dogs / "print.jpg")
    picture(24).convert("RGBA").save(dogs / "alpha.png")
    picture(25).convert("P").save(dogs / "palette.png")
    picture(26).convert("1").save(dogs / "lines.png")
    return root


@pytest.fixture(scope="module")
def found(defects: Path) -> Findings:
    return looked(defects)


def test_every_line_of_the_report(found: Findings, defects: Path) -> None:
    lines, size = text_of(found), sum((defects / name).stat().st_size for name in list_images(defects))
    assert list(lines)[:5] == ["verdict", "good", "mend", "mind", "next"]
    assert lines["verdict"] == "NOT READY: 3 of 25 images cannot be used"
    assert lines["images"] == f"25 in {defects}, {size / 1000:.3g} kB"
    assert lines["unusable"].startswith("3: 1 damaged: the header can be read")
    for text in ("1 empty", "1 no image", f"  {defects / 'train/dogs/empty.JPG'}: the file is empty"):
        assert text in lines["unusable"]
    assert lines["formats"].startswith("PNG 20 (87 %), JPEG 2 (8.7 %), BMP 1 (4.3 %); suffixes .bmp, .jpg, .png")
    assert lines["misnamed"] == f"1, read all the same\n  {defects / 'train/dogs/photo.png'} is a JPEG"
    assert lines["sizes"] == (
        "sides from 40 to 96 px, most often 96x80 (21 images); below 64 px, too small to train the denoiser on: 1; "
        "below 224 px, enlarged by DINOv2's global crops: 22"
    )
    for text in ("RGB 17", "gray 2", "CMYK 1", "RGB with alpha 1", "palette 1", "alpha is dropped", "colour profile"):
        assert text in lines["channels"]
    assert lines["bit depth"] == "8 bit 21 (95 %), 1 bit 1 (4.5 %)"
    assert lines["duplicates"].splitlines() == [
        "2 with the same bytes; 1 with the same pixels in other files",
        "  train/cats/1.png = train/cats/copy of 1.png",
        "  train/dogs/4.png = val/dogs/leak.png",
        "  train/dogs/2 again.bmp = train/dogs/2.png",
    ]
    assert lines["leaked"] == (
        "1 image in more than one split: training sees what is tested on\n  train/dogs/4.png = val/dogs/leak.png"
    )
    assert lines["folders"] == "2, of 7 (cats) to 15 (dogs) images"
    assert lines["noise"].endswith("(22 images)")
    assert "(red, green, blue)" in lines["saturated"]


def test_the_verdict_says_what_to_mend_and_the_next_command(found: Findings, defects: Path) -> None:
    lines = text_of(found)
    assert "repair or remove 3 files" in lines["mend"]
    assert "3 duplicates: they weigh twice" in lines["mind"]
    assert "1 image below 64 px: `denoise train` needs `--min-side 64`" in lines["mind"]
    assert f"dinov2-noise check {defects} --list-bad bad.txt --write-list usable.txt" in lines["next"]


def test_numbers_for_machines(found: Findings) -> None:
    numbers = json.loads(json.dumps(record(found), allow_nan=False))
    assert (numbers["kind"], numbers["good"], numbers["images"], numbers["decoded"]) == ("check", False, 25, 25)
    assert numbers["unusable"]["by_cause"] == {"damaged": 1, "empty": 1, "no image": 1}
    assert numbers["duplicates"]["leaked"]["first"] == [["train/dogs/4.png", "val/dogs/leak.png"]]
    assert numbers["sizes_px"]["most_frequent"][0] == [96, 80, 21]
    assert numbers["sizes_px"]["below_denoiser"] == 1
    assert numbers["groups"] == {"labelled": False, "images": {"dogs": 15, "cats": 7}}
    assert len(numbers["noise"]["curve"]["mean_255"]) == len(numbers["noise"]["curve"]["std_255"]) > 3


def test_several_processes_and_a_sample_find_the_same(found: Findings, defects: Path) -> None:
    numbers = record(found)
    assert record(check(defects, workers=2, progress=False)) == numbers
    some = record(looked(defects, sample=6))
    assert some["decoded"] == 6
    # Files that are equal byte by byte are found without decoding them.
    assert some["duplicates"]["exact"] == numbers["duplicates"]["exact"]
    assert some["sizes_px"] == numbers["sizes_px"] or some["unusable"]["count"] < 3
    assert some["unusable"]["by_cause"]["empty"] == 1


def test_lists_of_usable_and_of_bad_files(found: Findings, defects: Path, tmp_path: Path) -> None:
    write_lists(found, usable=tmp_path / "usable.txt", bad=tmp_path / "bad.txt")
    bad = (tmp_path / "bad.txt").read_text(encoding="utf-8").splitlines()
    assert bad == [str(defects / f"train/dogs/{name}") for name in ("cut.png", "empty.JPG", "text.webp")]
    listed = f"ImageFolder:root={defects}:list={tmp_path / 'usable.txt'}"
    dataset = make(listed)
    assert len(dataset) == 22  # type: ignore[arg-type]
    again = looked(listed)
    assert again.good
    assert text_of(again)["verdict"] == "ready: all 22 images can be used, with 3 warnings"


def test_missing_files_of_a_list_are_named(defects: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("train/cats/1.png\ntrain/cats/gone.png\n", encoding="utf-8")
    lines = text_of(looked(f"ImageFolder:root={defects}:list={tmp_path / 'list.txt'}"))
    assert lines["unusable"].startswith("1: 1 listed, but cannot be opened")
    assert f"  {defects / 'train/cats/gone.png'}: " in lines["unusable"]


def test_classes_and_their_balance(small_set: SmallSet) -> None:
    lines = text_of(looked(f"ImageNet:split=TRAIN:root={small_set.noisy}"))
    assert lines["images"].startswith("20 in ImageNet:split=TRAIN")
    assert lines["classes"] == "5, of 4 images each"


def test_blurred_noise_is_good_with_a_warning(small_set: SmallSet, tmp_path: Path) -> None:
    for name in list_images(small_set.noisy):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(small_set.noisy / name).filter(ImageFilter.GaussianBlur(0.7)).save(tmp_path / name)
    found = looked(tmp_path)
    assert found.good
    lines = text_of(found)
    assert lines["neighbours"].startswith("correlated: the noise is correlated between pixels")
    assert "the denoiser would keep it" in lines["mind"]
    assert lines["next"] == f"dinov2-noise denoise train {tmp_path} DENOISER --stride 2"


@pytest.mark.parametrize("side", [1, 7])
def test_tiny_images_are_too_small_to_tell(side: int, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((side, side, 3), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    lines = text_of(looked(tmp_path))
    assert lines["noise"] == (
        "the images are too small to tell: an estimate needs 64 patches of 8x8 pixels, and 3 images gave 0"
    )
    assert "autocorrelation" not in lines
    assert lines["sizes"].startswith(f"all {side}x{side} px")


def test_one_image_is_one_image(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    lines = text_of(looked(tmp_path))
    assert lines["verdict"].startswith("ready: the one image can be used")
    assert lines["noise"].endswith("(1 image)")
    assert "folders" not in lines


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    lines = text_of(looked(tmp_path))
    assert f"  {tmp_path / 'pipe.png'}: not a file" in lines["unusable"]
    assert f"  {tmp_path / 'broken.png'}: No such file or directory" in lines["unusable"]


def test_a_second_check_sees_what_has_come(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    assert len(looked(tmp_path).tally) == 1
    picture(1).save(tmp_path / "b.png")
    assert len(looked(tmp_path).tally) == 2


def test_tar_shards(tmp_path: Path) -> None:
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "a.tar", "w") as tar:
        for number in range(3):
            tar.add(tmp_path / f"{number}.png", f"{number}.png")
    with pytest.raises(MissingFolderError, match=f"give them as WebDataset:root={shards}"):
        looked(shards)
    found = looked(f"WebDataset:root={shards}")
    assert record(found)["mend"] == ["repair or remove 1 file (`--list-bad FILE` writes all their names)"]
    assert text_of(found)["next"] == f"dinov2-noise check WebDataset:root={shards} --list-bad bad.txt"
    with pytest.raises(ConfigError, match="no list names images in tar shards"):
        check_command(
            f"WebDataset:root={shards}",
            **dict.fromkeys(("denoised", "weights", "clean", "values", "sample", "workers", "json", "bad_list")),
            usable_list=tmp_path / "list.txt",
        )


def test_the_command_prints_aligned_lines_and_writes_its_files(defects: Path, tmp_path: Path) -> None:
    done = run_python(
        *("-m", "dinov2_noise", "check", str(defects), "--workers", "1", "--json", str(tmp_path / "new" / "r.json")),
        *("--write-list", str(tmp_path / "usable.txt"), "--list-bad", str(tmp_path / "bad.txt")),
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "verdict         NOT READY: 3 of 25 images cannot be used"
    assert all(line[16] != " " or line[:16].strip() == "" for line in lines)
    assert json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8"))["images"] == 25
    assert len((tmp_path / "usable.txt").read_text(encoding="utf-8").splitlines()) == 22
    assert len((tmp_path / "bad.txt").read_text(encoding="utf-8").splitlines()) == 3


def test_long_lines_are_broken_in_a_terminal() -> None:
    text = as_printed("mend", "some words that are many more than fit\n  a/very/long/path: why it is not usable", 60)
    assert text.splitlines() == [
        "mend            some words that are many more than fit",
        "                  a/very/long/path: why it is not usable",
    ]
    assert max(map(len, as_printed("mend", "words " * 40, 60).splitlines())) <= 60


def test_names_that_are_no_text_are_printed() -> None:
    assert as_printed("unusable", "a\udcff\n  b") == "unusable        a\ufffd\n                  b"


def test_what_cannot_be_checked_is_one_error(small_set: SmallSet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data, text in (
        (tmp_path / "none", "does not exist, and it is no dataset string"),
        (tmp_path / "empty", "holds no images"),
        (list_file := tmp_path / "list.txt", "is a file: give the folder it lies in"),
    ):
        list_file.touch()
        with pytest.raises(MissingFolderError, match=text):
            looked(data)
    with pytest.raises(DatasetStringError, match="unknown dataset 'Nope'"):
        looked("Nope:root=/x")
    with pytest.raises(ConfigError, match="write range=percentile,1,99"):
        looked(f"ImageFolder:root={small_set.clean}", values=parse_range("percentile:1,99"))
    with pytest.raises(ConfigError, match="sample must be at least 1"):
        looked(small_set.clean, sample=0)
    picture(0).save(tmp_path / "empty" / "other.png")
    with pytest.raises(MissingFolderError, match=r"none of the 30 images .* has a twin in the clean folder"):
        looked(small_set.noisy, clean=tmp_path / "empty")


def test_files_that_cannot_be_written_are_found_out_first(tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match="is a folder"):
        require_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        require_writable(tmp_path / "file" / "report.json")


def test_noise_in_the_dataset_string_is_what_is_measured(small_set: SmallSet, tmp_path: Path) -> None:
    found = looked(f"ImageFolder:root={small_set.clean}:noise=gauss100,seed=42")
    assert found.noise is not None
    add_noise(small_set.clean, tmp_path / "noisy", noise="gauss100", workers=1, progress=False)
    stored = looked(tmp_path / "noisy", clean=small_set.clean)
    assert stored.noise is not None
    assert found.noise.known == stored.noise.known == "gauss100"
    assert found.noise.snr_db == pytest.approx(stored.noise.snr_db, abs=1e-9)
    assert sorted(found.noise.black) == pytest.approx(sorted(stored.noise.black))
