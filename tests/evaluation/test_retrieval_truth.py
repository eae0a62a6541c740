"""Ground-truth files: what is read, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.errors import ImageError, MetadataError, MissingFolderError
from dinov2_noise.evaluation.retrieval_images import find_pictures
from dinov2_noise.evaluation.retrieval_pickle import read_plain
from dinov2_noise.evaluation.retrieval_truth import official_files, read_ground_truth

PLAIN = {
    "imlist": ["a", "b", "c", "d"],
    "qimlist": ["q0", "q1"],
    "gnd": [
        {"bbx": [1.4, 2, 30.6, 40], "easy": [0], "hard": [2, 3], "junk": [1]},
        {"easy": [], "hard": [1], "junk": []},
    ],
}


class _Opens:
    """What a hostile pickle does when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _with_arrays(content: dict[str, Any]) -> dict[str, Any]:
    arrays = [
        {key: np.array(value, dtype=float if key == "bbx" else int) for key, value in one.items()}
        for one in content["gnd"]
    ]
    return {**content, "gnd": arrays}


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_and_json_are_read_alike(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(_with_arrays(PLAIN), protocol=protocol))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    (tmp_path / "c.json").write_text(json.dumps(PLAIN))
    for name in ("a.pkl", "b.pkl", "c.json"):
        found = read_ground_truth(tmp_path / name)
        assert list(found.images) == ["a", "b", "c", "d"]
        assert list(found.queries) == ["q0", "q1"]
        assert list(found.boxes) == [(1, 2, 31, 40), None]
        assert [[part.tolist() for part in (one.easy, one.hard, one.junk)] for one in found.relevance] == [
            [[0], [2, 3], [1]],
            [[], [1], []],
        ]
        assert found.asks_for_itself == 0


def test_names_of_older_numpy_and_of_python_2_are_known() -> None:
    text = pickle.dumps({"a": np.arange(3), "b": np.float64(0.5)}, protocol=2)
    old = text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != text
    found = read_plain(old, "f")
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"] == 0.5
    assert read_plain(b"(dp0\nS'imlist'\np1\n(lp2\nS'all_souls_000013'\np3\nas.", "f") == {
        "imlist": ["all_souls_000013"]
    }


@pytest.mark.parametrize(
    "value",
    [Path("x"), np.array([{"a": 1}], dtype=object), io.StringIO, complex(1, 2), np.random.default_rng(0)],
    ids=["path", "objects", "class", "complex", "generator"],
)
def test_foreign_objects_are_refused(value: object) -> None:
    with pytest.raises(MetadataError, match="Nothing in it was run"):
        read_plain(pickle.dumps({"imlist": value}), "gnd.pkl")


def test_a_program_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps({"imlist": [_Opens(tmp_path / "made")]}))
    with pytest.raises(MetadataError, match=r"gnd\.pkl.*it holds posix\.mkdir"):
        read_ground_truth(tmp_path / "gnd.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x89PNG\r\n", pickle.dumps(PLAIN)[:-20], b'{"imlist": ['])
def test_what_is_neither_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "gnd.pkl").write_bytes(data)
    with pytest.raises(MetadataError, match=r"cannot read .*gnd\.pkl"):
        read_ground_truth(tmp_path / "gnd.pkl")


def _changed(**entry: Any) -> dict[str, Any]:
    return {**PLAIN, "gnd": [{**PLAIN["gnd"][0], **entry}, PLAIN["gnd"][1]]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_changed(easy=[4]), "easy of query q0 has index 4, beyond the 4 images"),
        (_changed(junk=[-1]), "junk of query q0 has index -1"),
        (_changed(easy=[0, 2]), "query q0 has image 2 more than once"),
        (_changed(hard=[3, 3]), "query q0 has image 3 more than once"),
        (_changed(easy="no"), "easy of query q0 must be a list of whole numbers"),
        (_changed(easy=[0.5]), "easy of query q0 must be a list of whole numbers"),
        (_changed(easy=[[0], [1, 2]]), "easy of query q0 is no list of numbers"),
        (_changed(bbx=[1, 2, 3]), "bbx of query q0 must be four numbers"),
        (_changed(bbx=[30, 2, 10, 40]), "bbx of query q0, 30, 2, 10, 40, is empty"),
        ({**PLAIN, "imlist": ["a", "a", "c", "d"]}, "a stands twice in imlist"),
        ({**PLAIN, "imlist": []}, "imlist must be a list of names"),
        ({**PLAIN, "qimlist": ["q0"]}, "gnd must be one mapping for each of the 1 queries in qimlist, it has 2"),
        ({"imlist": ["a"], "gnd": []}, "must be a mapping with imlist, qimlist and gnd"),
        ([1, 2], "must be a mapping with imlist, qimlist and gnd"),
        ({**PLAIN, "gnd": [{"junk": [0]}, {}]}, "none of the 2 queries has a positive"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_content_is_named(tmp_path: Path, content: object, words: str) -> None:
    (tmp_path / "gnd.json").write_text(json.dumps(content))
    with pytest.raises(MetadataError, match=words):
        read_ground_truth(tmp_path / "gnd.json")


def test_a_query_that_finds_itself_is_counted(tmp_path: Path) -> None:
    (tmp_path / "gnd.json").write_text(json.dumps({**PLAIN, "qimlist": ["b", "b"]}))
    assert read_ground_truth(tmp_path / "gnd.json").asks_for_itself == 1  # junk for the first, not for the second


def test_official_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match=r"holds no gnd_roxford5k\.pkl"):
        official_files(tmp_path, "roxford5k")
    (tmp_path / "roxford5k").mkdir()
    file = tmp_path / "roxford5k" / "gnd_roxford5k.pkl"
    file.write_bytes(pickle.dumps(PLAIN))
    assert official_files(tmp_path, "roxford5k") == official_files(file.parent, "roxford5k") == (file, file.parent)
    with pytest.raises(MissingFolderError, match="does not exist"):
        read_ground_truth(tmp_path / "gnd.pkl")


def test_images_are_found_whatever_their_suffix(tmp_path: Path) -> None:
    for name in ("jpg/a.jpg", "jpg/b.png", "jpg/c.d.JPG", "jpg/sub/e.jpeg", "f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    names = ["a", "b.jpg", "c.d", "sub/e"]
    found = find_pictures(names, tmp_path, listed_in="gnd.pkl")
    assert [one.relative_path for one in found] == ["jpg/a.jpg", "jpg/b.png", "jpg/c.d.JPG", "jpg/sub/e.jpeg"]
    assert [one.relative_path for one in find_pictures(["a", "b"], tmp_path / "jpg", listed_in="")] == [
        "a.jpg",
        "b.png",
    ]
    missing = [f"x{number}" for number in range(7)]
    with pytest.raises(MetadataError, match=r"7 of the 8 images that gnd\.pkl names .*\n  x0\n(.*\n)+  … and 2 more"):
        find_pictures(["a", *missing], tmp_path, listed_in="gnd.pkl")
    with pytest.raises(MissingFolderError, match="image folder"):
        find_pictures(["a"], tmp_path / "nowhere", listed_in="gnd.pkl")


def test_boxes_crop_as_far_as_the_image_goes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    inside, over, outside = find_pictures(
        ["a"] * 3, tmp_path, boxes=[(1, 2, 5, 4), (-3, 4, 99, 99), (8, 0, 9, 5)], listed_in=""
    )
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(inside.crop(image)), pixels[2:4, 1:5])
    assert np.array_equal(np.asarray(over.crop(image)), pixels[4:])
    with pytest.raises(ImageError, match=r"a\.png: the query's box \(8, 0, 9, 5\) lies outside of its 8x6 px"):
        outside.crop(image)
