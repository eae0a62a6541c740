"""Adds up what was found out about single files; per image about 60 bytes are kept, whatever the images' size."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.check.look import DIGEST_BYTES, Facts, Fault, Look, Values

SHOWN = 5  # files that are named of each sort

HEADER_ONLY, USABLE, BAD = 0, 1, 2


class Named(NamedTuple):
    """A file and what is said of it."""

    number: int
    path: str
    text: str


class Depth(NamedTuple):
    """Of all images of more than 8 bits of one kind: ends of the values, and the most extreme of other measures.

    Attributes:
        images: how many.
        low, high: smallest and largest value in any image.
        spread: mean difference of the percentiles 99 and 1.
        contrast: largest (99.9th percentile - low) / (median - low); a star field has thousands.
        missing, holes: images that have pixels without data, and the largest share of those in one.
        ends: what range ``dtype`` makes black and white, the widest; None where a type has none.
        has_window: all files name a window of their own.
    """

    images: int = 0
    low: float = np.inf
    high: float = -np.inf
    spread: float = 0.0
    contrast: float = 0.0
    missing: int = 0
    holes: float = 0.0
    ends: tuple[float, float] | None = (np.inf, -np.inf)
    has_window: bool = True

    def with_one(self, values: Values) -> Depth:
        above = values.median - values.low
        contrast = (values.bright - values.low) / above if above > 0 else 0.0
        return Depth(
            self.images + 1,
            min(self.low, values.low),
            max(self.high, values.high),
            self.spread + (values.spread - self.spread) / (self.images + 1),
            max(self.contrast, contrast),
            self.missing + (values.missing > 0),
            max(self.holes, values.missing),
            (min(self.ends[0], values.ends[0]), max(self.ends[1], values.ends[1]))
            if self.ends is not None and values.ends is not None
            else None,
            self.has_window and values.has_window,
        )


class Tally:
    """What is known of ``count`` images.

    Attributes:
        size_bytes: (n,) of the files.
        sides_px: (n, 2) width and height; 0 where unknown.
        state: (n,) one of HEADER_ONLY, USABLE, BAD.
        bytes_digests, pixels_digests: (n, 2) 16 bytes each; 0 where unknown.
    """

    def __init__(self, count: int) -> None:
        self.size_bytes = np.zeros(count, np.int64)
        self.sides_px = np.zeros((count, 2), np.int32)
        self.state = np.zeros(count, np.uint8)
        self.bytes_digests = np.zeros((count, 2), np.uint64)
        self.pixels_digests = np.zeros((count, 2), np.uint64)
        self.formats: Counter[tuple[str, str]] = Counter()
        self.channels: Counter[str] = Counter()
        self.depths: Counter[str] = Counter()
        self.values: dict[str, Depth] = {}
        self.faults: Counter[Fault] = Counter()
        self.named: list[Named] = []
        self.misnamed: list[Named] = []
        self._opened = 0

    def __len__(self) -> int:
        return len(self.state)

    def add(self, look: Look) -> None:
        """Take one image's look in, in any order."""
        index = look.number
        self._opened += look.is_whole
        self.size_bytes[index] = look.size_bytes
        self.bytes_digests[index] = as_numbers(look.bytes_digest)
        self.pixels_digests[index] = as_numbers(look.pixels_digest)
        if look.facts is not None:
            self._add_facts(look, look.facts)
        if look.fault is not None:
            self.state[index] = BAD
            self.faults[look.fault] += 1
            _keep(self.named, Named(index, look.path, look.cause))
        elif look.pixels_digest:
            self.state[index] = USABLE

    def _add_facts(self, look: Look, facts: Facts) -> None:
        self.sides_px[look.number] = facts.width, facts.height
        self.formats[facts.suffix, facts.kind] += 1
        if facts.is_misnamed:
            _keep(self.misnamed, Named(look.number, look.path, f"is a {facts.kind}"))
        if facts.channels and look.fault in (None, "range"):
            self.channels[facts.channels] += 1
            self.depths[facts.depth] += 1
        if facts.values is not None:
            self.values[facts.depth] = self.values.get(facts.depth, Depth()).with_one(facts.values)

    @property
    def bad(self) -> int:
        """How many cannot be used."""
        return int((self.state == BAD).sum())

    @property
    def opened(self) -> int:
        """How many were read as a whole, or were to be."""
        return self._opened

    def good_sides(self) -> NDArray[np.int32]:
        """(m, 2) width and height of the images that can be used."""
        sides: NDArray[np.int32] = self.sides_px[(self.state != BAD) & (self.sides_px[:, 0] > 0)]
        return sides

    def below(self, side_px: int) -> int:
        """How many of them have a side of less."""
        return int((self.good_sides().min(axis=1, initial=2**30) < side_px).sum())

    def usable(self) -> NDArray[np.int64]:
        """Indices of the images that are not bad."""
        return np.flatnonzero(self.state != BAD)

    def decoded(self) -> NDArray[np.int64]:
        """Indices of the images that were decoded, and are usable."""
        return np.flatnonzero(self.state == USABLE)

    def misnamed_count(self) -> int:
        return sum(count for (suffix, kind), count in self.formats.items() if _facts_of(suffix, kind).is_misnamed)


def _facts_of(suffix: str, kind: str) -> Facts:
    return Facts(suffix, kind, "", "", 0, 0, None)


def _keep(named: list[Named], new: Named) -> None:
    """The first few in the order of the images, in whichever order they come."""
    named.append(new)
    named.sort()
    del named[SHOWN:]


def as_numbers(digest: bytes) -> tuple[int, int]:
    half = DIGEST_BYTES // 2
    return int.from_bytes(digest[:half], "little"), int.from_bytes(digest[half:], "little")
