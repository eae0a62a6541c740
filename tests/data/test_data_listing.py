"""Threads that read folders: in order, never far ahead, and an error is raised where it belongs."""

from pathlib import Path

import pytest

from dinov2_noise.data.listing import ordered, relative_to_root, written
from dinov2_noise.errors import MetadataError


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_order_and_few_wait(workers):
    started, ahead = [], []

    def square(number: int) -> int:
        started.append(number)
        return number**2

    results = []
    for result in ordered(square, range(100), workers):
        ahead.append(len(started) - len(results))
        results.append(result)
    assert results == [number**2 for number in range(100)]
    assert max(ahead) <= 4 * workers


def test_an_error_comes_in_its_place_and_stops_the_rest():
    seen = []

    def fail_at_3(number: int) -> int:
        seen.append(number)
        if number == 3:
            raise MetadataError("three")
        return number

    results = ordered(fail_at_3, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MetadataError, match="three"):
        next(results)
    assert len(seen) < 20


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.png", "a/b.png"), ("./a//b.png", "a/b.png"), ("a/../b.png", "b.png"), ("/r/s/a.png", "a.png"), (" a", " a")],
)
def test_paths_of_lists(path, expected):
    assert relative_to_root(path, Path("/r/s")) == expected


@pytest.mark.parametrize("path", ["..", "../a.png", "a/../../b.png", "/r/t/a.png", "/r/s", "."])
def test_paths_that_lead_elsewhere(path):
    with pytest.raises(MetadataError, match="does not lie below /r/s"):
        relative_to_root(path, Path("/r/s"))


def test_what_is_written_is_what_is_read():
    assert [written(path) for path in ("a.png", "#a.png", " #a", "a#")] == ["a.png", "./#a.png", "./ #a", "a#"]
    assert relative_to_root(written(" #a"), Path("/r")) == " #a"
    with pytest.raises(MetadataError, match="line break"):
        written("a\rb.png")
