"""A first look through a listing of labelled images: which splits and classes there are, how many, how long the paths.

The metadata are arrays, whose shape stands at their beginning: it must be known before the first image is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dinov2_noise.data.listing import read_lines, relative_to_root
from dinov2_noise.data.metadata import encode_path
from dinov2_noise.data.strings import SPLITS
from dinov2_noise.errors import MetadataError, MissingFolderError
from dinov2_noise.files import is_image_name

_FOLDERS = {split.lower(): number for number, split in enumerate(SPLITS)}


# An image of a listing: the place of its split in `SPLITS`, its class id (empty without class), and its path relative
# to the root. Metadata hold images in the order of these tuples.
Entry = tuple[int, str, str]


@dataclass
class Survey:
    """Of one split.

    Attributes:
        longest_path: in bytes.
        per_class: class ids in order, and their numbers of images; for a ``test`` split without classes the only id is
            empty.
    """

    longest_path: int = 0
    per_class: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Images."""
        return sum(self.per_class.values())

    @property
    def class_ids(self) -> list[str]:
        """In order; empty for a ``test`` split without classes."""
        return [class_id for class_id in self.per_class if class_id]


def entry_of(path: str) -> Entry | None:
    """The image with this path, relative to the root; None for what `dinov2-noise index` passes over."""
    folder, _, rest = path.partition("/")
    if folder not in _FOLDERS or "/." in path or not is_image_name(path[path.rfind("/") + 1 :]):
        return None
    class_id, slash, _ = rest.partition("/")
    return _FOLDERS[folder], class_id if slash else "", path


def entries_of(listing: Path, root: Path) -> Iterator[Entry]:
    """The images of a listing, in its order.

    Raises:
        MissingFolderError, MetadataError: it does not exist, cannot be read, or names paths outside of ``root``.
    """
    for _, text in read_lines(listing):
        entry = entry_of(relative_to_root(text, root))
        if entry is not None:
            yield entry


def survey(entries: Iterable[Entry], root: Path) -> dict[str, Survey] | None:
    """What there is, per split in the order of `SPLITS`; None if the images are not in order.

    Raises:
        MetadataError: an image stands twice, or lies outside of a class folder.
        MissingFolderError: there is no image.
    """
    found: dict[str, Survey] = {}
    last = (-1, "", "")
    for entry in entries:
        if entry <= last:
            if entry == last:
                raise MetadataError(f"{entry[2]} stands twice in the listing: take one line out")
            return None
        split_number, class_id, path = entry
        if split_number != last[0]:
            seen = found[SPLITS[split_number]] = Survey()
        seen.per_class[class_id] = seen.per_class.get(class_id, 0) + 1
        seen.longest_path = max(seen.longest_path, len(encode_path(path)))
        last = entry
    if not found:
        raise MissingFolderError(f"the listing names no image below train, val or test of {root}")
    for split, seen in found.items():
        _check_classes(root / split.lower(), split, seen)
    return found


def _check_classes(folder: Path, split: str, seen: Survey) -> None:
    if "" in seen.per_class and (split != "TEST" or len(seen.per_class) > 1):
        raise MetadataError(f"an image directly in {folder} lies outside of a class folder: move it into one")
