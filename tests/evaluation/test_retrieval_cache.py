"""Kept features: continued, remade where they do not fit or are damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov2_noise.errors import ImageError, MissingFolderError
from dinov2_noise.evaluation.retrieval_cache import PART_IMAGES, FeatureCache, Features
from dinov2_noise.evaluation.retrieval_floors import chance, colour_features
from dinov2_noise.evaluation.retrieval_images import Picture
from dinov2_noise.evaluation.retrieval_scores import Relevance

N_IMAGES = 2 * PART_IMAGES + 10


class _Counter:
    """Features that tell the image's number, and which parts were asked for."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[list[int]] = []
        self.fails_at = fails_at

    def __call__(self, parts: Sequence[Sequence[int]]) -> Iterator[Features]:
        for part in parts:
            if self.fails_at is not None and self.fails_at in part:
                raise ImageError(f"{self.fails_at}.png", "truncated")
            self.asked.append(list(part))
            numbers = np.array(part, dtype=np.float32)[:, None]
            yield Features(numbers, -numbers, np.full(len(part), np.nan))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    for number in range(N_IMAGES):
        (tmp_path / f"{number}.png").write_bytes(b"picture")
    return [Picture(tmp_path, f"{number}.png") for number in range(N_IMAGES)]


def _numbers(found: Features) -> list[int]:
    assert np.array_equal(found.colours, -found.tokens)
    assert np.isnan(found.snr_db).all()
    return [int(value) for value in found.tokens[:, 0]]


def test_the_second_time_nothing_is_extracted(tmp_path: Path, pictures: list[Picture]) -> None:
    cache, first, second = FeatureCache(tmp_path / "kept", pictures, {"weights": "a"}), _Counter(), _Counter()
    assert _numbers(cache.features(first)) == _numbers(cache.features(second)) == list(range(N_IMAGES))
    assert [len(part) for part in first.asked] == [256, 256, 10]
    assert second.asked == []


def test_an_interrupted_extraction_goes_on(tmp_path: Path, pictures: list[Picture]) -> None:
    cache, broken, rest = FeatureCache(tmp_path / "kept", pictures, {}), _Counter(fails_at=300), _Counter()
    with pytest.raises(ImageError, match=r"300\.png"):
        cache.features(broken)
    assert [part[0] for part in broken.asked] == [0]
    assert _numbers(cache.features(rest)) == list(range(N_IMAGES))
    assert [part[0] for part in rest.asked] == [256, 512]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other"])
def test_a_damaged_part_is_made_again(tmp_path: Path, pictures: list[Picture], damage: str) -> None:
    cache, again = FeatureCache(tmp_path / "kept", pictures, {}), _Counter()
    cache.features(_Counter())
    (file,) = [path for path in (tmp_path / "kept").iterdir() if np.load(path)["tokens"][0, 0] == 256]
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[400] ^= 1  # in the numbers
    file.write_bytes({"cut": data[:-100], "empty": b"", "other": b"no zip"}.get(damage, bytes(data)))
    assert _numbers(cache.features(again)) == list(range(N_IMAGES))
    assert [part[0] for part in again.asked] == [256]


def test_what_decides_features_decides_what_is_kept(tmp_path: Path, pictures: list[Picture]) -> None:
    kept = tmp_path / "kept"
    FeatureCache(kept, pictures, {"noise": "gauss50"}).features(_Counter())
    other = _Counter()
    FeatureCache(kept, pictures, {"noise": "gauss100"}).features(other)
    assert len(other.asked) == 3
    changed = _Counter()
    pictures[1] = Picture(pictures[1].root, "1.png", (0, 0, 2, 2))  # another box
    os.utime(pictures[515].path, ns=(1, 1))  # written anew
    FeatureCache(kept, pictures, {"noise": "gauss50"}).features(changed)
    assert [part[0] for part in changed.asked] == [0, 512]
    status = pictures[300].path.stat()
    pictures[300].path.write_bytes(b"another")  # of one size, and the time is set back
    os.utime(pictures[300].path, ns=(status.st_atime_ns, status.st_mtime_ns))
    exchanged = _Counter()
    FeatureCache(kept, pictures, {"noise": "gauss50"}).features(exchanged)
    assert [part[0] for part in exchanged.asked] == [256]
    pictures[3].path.unlink()
    with pytest.raises(MissingFolderError, match=r"3\.png is gone"):
        FeatureCache(kept, pictures, {}).features(_Counter())


def test_features_that_are_not_finite_are_not_believed(tmp_path: Path, pictures: list[Picture]) -> None:
    cache = FeatureCache(tmp_path / "kept", pictures[:5], {})

    def broken(parts: Sequence[Sequence[int]]) -> Iterator[Features]:
        for part in parts:
            yield Features(np.full((len(part), 2), np.nan, np.float32), np.zeros((len(part), 1)), np.zeros(len(part)))

    cache.features(broken)
    again = _Counter()
    assert _numbers(cache.features(again)) == [0, 1, 2, 3, 4]


def test_the_extractor_may_not_leave_parts_out(tmp_path: Path, pictures: list[Picture]) -> None:
    with pytest.raises(ValueError, match="shorter"):
        FeatureCache(tmp_path / "kept", pictures, {}).features(lambda parts: iter(()))


def test_colours_of_images_by_hand() -> None:
    images = torch.zeros(2, 3, 2, 2)
    images[0, 0] = 1.0  # red
    images[1, :, 0] = 0.99  # half white, half black
    found = colour_features(images)
    assert found[0].nonzero().flatten().tolist() == [3 * 16]
    assert found[1][[0, 63]].tolist() == pytest.approx([0.5**0.5] * 2)
    assert (found @ found.T).tolist() == [pytest.approx([1.0, 0.0]), pytest.approx([0.0, 1.0])]


def test_chance_is_that_of_many_random_rankings() -> None:
    empty = np.zeros(0, np.int64)
    # one positive among n: AP is the mean over ranks r of (0 + 1 / (r + 1)) / 2, and at the top 1
    n = 20
    found = chance([Relevance(np.array([3]), empty, empty)] * 60, n)
    expected = (1 + sum(1 / (rank + 1) / 2 for rank in range(1, n))) / n
    assert found["easy"]["map"] == pytest.approx(expected, rel=0.1)
    assert set(found) == {"easy", "medium"}
