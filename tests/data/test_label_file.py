"""Label files: what is read, what is refused, and the dataset behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.data import labelled_images_string, make, read_label_file, write_label_file
from dinov2_noise.data.label_file import sorted_classes
from dinov2_noise.errors import DatasetStringError, DinoNoiseError, MetadataError, MissingFolderError
from dinov2_noise.noise import noisy_uint8, parse


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na/1.png,cat\nb.png,dog\n",
        "\ufeffPath , LABEL\r\na/1.png , cat\r\n\r\nb.png,dog",  # as a spreadsheet writes it
        "id;label;path\n7;cat;a/1.png\n8;dog;b.png\n",
        'label\tpath\ncat\t./a/1.png\n"dog"\tb.png\n',
        "path,label,comment\na//1.png,cat\nb.png,dog,blurred\n",  # a row may be short
    ],
    ids=["plain", "spreadsheet", "semicolons", "tabs", "short row"],
)
def test_the_same_table_is_read_from_different_writings(tmp_path: Path, text: str) -> None:
    found = read_label_file(written(tmp_path, text), tmp_path)
    assert (list(found.paths), list(found.labels)) == (["a/1.png", "b.png"], ["cat", "dog"])
    assert (list(found.targets), list(found.classes)) == ([0, 1], ["cat", "dog"])


def test_quotes_protect_separators_and_absolute_paths_are_shortened(tmp_path: Path) -> None:
    text = f'path,label\n"a,b.png","bird, small"\n{tmp_path}/c.png,fish\n'
    found = read_label_file(written(tmp_path, text), tmp_path)
    assert list(found.paths) == ["a,b.png", "c.png"]
    assert list(found.classes) == ["bird, small", "fish"]


def test_whole_numbers_are_ordered_as_numbers() -> None:
    assert sorted_classes(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sorted_classes(["10", "9", "x"]) == ["10", "9", "x"]


def test_a_target_column_numbers_the_classes(tmp_path: Path) -> None:
    found = read_label_file(written(tmp_path, "path,label,target\na.png,dog,2\nb.png,ape,0\n"), tmp_path)
    assert (list(found.targets), list(found.classes)) == ([2, 0], ["ape", "1", "dog"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "a header and no rows"),
        ("a.png,cat\nb.png,dog\n", "no column 'path'; its header is 'a.png,cat'"),
        ("path,class\na.png,cat\n", "no column 'label'; its header is 'path,class'"),
        ("path,path,label\na,b,c\n", "more than one column 'path'"),
        ("path,label\na.png,\nb.png,dog\nc.png, \n", r"2 of 3 images of .*labels.csv have no label:\n  row 2: a.png\n"),
        ("path,label\n,cat\n", r"1 of 1 rows .* have no path:\n  row 2"),
        ("path,label\na.png,cat\n./a.png,dog\n", r"1 paths stand more than once .*:\n  a.png \(rows 2 and 3\)"),
        ("path,label\n../a.png,cat\n", "row 2 of .*does not lie below .*--root"),
        ("path,label\na,b.png,cat\n", "row 2 of .* has 3 fields, the header 2.*double quotes"),
        ("path,label,target\na.png,cat,x\n", "target 'x' is not a whole number"),
        ("path,label,target\na.png,cat,0\nb.png,dog,0\n", "the target 0 to both 'cat' and 'dog'"),
        ("path,label,target\na.png,cat,0\nb.png,cat,1\n", "one label several targets"),
    ],
    ids=lambda value: value.split(":")[0][:30] if "\n" not in value else "",
)
def test_what_is_no_label_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read_label_file(written(tmp_path, text), tmp_path)


def test_missing_files_and_other_encodings(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"none\.csv does not exist"):
        read_label_file(tmp_path / "none.csv", tmp_path)
    with pytest.raises(DinoNoiseError, match="column 'path'"):
        read_label_file(written(tmp_path, "path,label\na.png,cat\n", "utf-16"), tmp_path)
    latin = read_label_file(written(tmp_path, "path,label\nä.png,ü\n", "latin-1"), tmp_path)
    assert latin.paths[0].encode("utf-8", "surrogateescape") == "ä.png".encode("latin-1")


def test_many_faults_are_counted_and_five_named(tmp_path: Path) -> None:
    rows = "".join(f"{number}.png,\n" for number in range(9))
    with pytest.raises(MetadataError, match="… and 4 more"):
        read_label_file(written(tmp_path, f"path,label\n{rows}"), tmp_path)


def test_the_dataset_has_images_classes_and_noise(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for name in ("x/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    file = tmp_path / "own.csv"
    write_label_file(file, [("x/a.jpg", "dog", 1), ("b.png", "cat", 0)])  # the labels of JPEGs serve their PNG copies
    string = labelled_images_string(tmp_path, file)
    dataset = make(string)
    assert (len(dataset), dataset.n_classes, dataset.get_targets().tolist()) == (2, 2, [1, 0])  # type: ignore[attr-defined, arg-type]
    assert [dataset.find_class_id(target) for target in (0, 1)] == ["cat", "dog"]  # type: ignore[attr-defined]
    assert dataset.relative_path(0) == "x/a.png"  # type: ignore[attr-defined]
    noisy = make(f"{string}:noise=gauss50,seed=7").noisy(1)  # type: ignore[attr-defined]
    expected = noisy_uint8(pixels, parse("gauss50"), relative_path="b.png", base_seed=7)
    assert (np.asarray(noisy) == expected).all()


def test_strings_need_a_list_and_paths_without_colons(tmp_path: Path) -> None:
    with pytest.raises(DatasetStringError, match="list missing"):
        make(f"LabelledImages:root={tmp_path}")
    with pytest.raises(MetadataError, match="':'"):
        labelled_images_string(tmp_path / "a:b", tmp_path / "l.csv")
    file = written(tmp_path, "path,label\ngone.png,cat\n")
    with pytest.raises(MetadataError, match=r"gone\.png, image 0 of"):
        make(labelled_images_string(tmp_path, file))[0]
