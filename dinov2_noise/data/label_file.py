"""Label files: CSV with a header, one image and its label a row.

The columns ``path`` and ``label`` are needed, in any place and case; others are passed over. Commas, semicolons or tabs
separate them, as the header does. An optional ``target`` numbers the classes, from 0; without it they are numbered in
the order of `sorted_classes`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinov2_noise.data.listing import relative_to_root
from dinov2_noise.errors import MetadataError, MissingFolderError
from dinov2_noise.files import atomic_path

PATH, LABEL, TARGET = "path", "label", "target"
LABEL_FILE_SUFFIXES = (".csv", ".tsv")
_SEPARATORS = ",;\t"
_SHOWN = 5


@dataclass(frozen=True)
class LabelFile:
    """What a label file says.

    Attributes:
        paths: relative to the root, with ``/`` between folders; each stands once. labels: of each path, as written.
        targets: the number of each label, from the file's ``target`` column or from the order of the labels.
        classes: labels by number; of numbers that no row has, the number itself.
    """

    paths: Sequence[str]
    labels: Sequence[str]
    targets: Sequence[int]
    classes: Sequence[str]


def read_label_file(path: Path, root: Path) -> LabelFile:
    """Read a label file whose paths are relative to ``root``, or absolute and below it.

    Raises:
        MissingFolderError: there is no such file.
        MetadataError: it is no such table, rows have no path or no label, a path stands twice or leads out of the root.
    """
    columns, rows = _table(path)
    _require_filled(path, rows, columns)
    paths = [_below(path, number, row[columns[PATH]], root) for number, row in rows]
    _require_once(path, paths, [number for number, _ in rows])
    labels = [row[columns[LABEL]] for _, row in rows]
    if TARGET not in columns:
        classes = sorted_classes(labels)
        number_of = {label: number for number, label in enumerate(classes)}
        return LabelFile(paths, labels, [number_of[label] for label in labels], classes)
    targets = [_number(path, number, row[columns[TARGET]]) for number, row in rows]
    return LabelFile(paths, labels, targets, _numbered(path, labels, targets))


def write_label_file(path: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    """Write rows of (path, label, target), atomically.

    Raises:
        WriteError: it cannot be written.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([(PATH, LABEL, TARGET), *rows])
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


def sorted_classes(labels: Iterable[str]) -> list[str]:
    """The different labels in order: as numbers where all are whole numbers, else as text."""
    different = set(labels)
    if all(label.removeprefix("-").isdecimal() and label.isascii() for label in different):
        return sorted(different, key=lambda label: (int(label), label))
    return sorted(different)


def shortened(names: Sequence[str]) -> str:
    """Names for a message, one a line: the first five, and how many more."""
    shown = "".join(f"\n  {name}" for name in names[:_SHOWN])
    return shown + (f"\n  … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _table(path: Path) -> tuple[dict[str, int], list[tuple[int, list[str]]]]:
    """Columns by name; rows with their numbers, as wide as the header, their fields stripped."""
    if not path.is_file():
        raise MissingFolderError(f"label file {path} {'is a folder' if path.exists() else 'does not exist'}")
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            head = stream.readline()
            stream.seek(0)
            separator = max(_SEPARATORS, key=head.count)
            lines = [(number, [field.strip() for field in row]) for number, row in _numbered_rows(stream, separator)]
    except (OSError, csv.Error, UnicodeDecodeError) as cause:
        raise MetadataError(
            f"cannot read label file {path}: {cause}; expected text with a header `path,label`"
        ) from cause
    if not lines:
        raise MetadataError(f"label file {path} is empty: expected a header `path,label` and a row per image")
    header = [name.lower() for name in lines[0][1]]
    for wanted in (PATH, LABEL):
        if header.count(wanted) != 1:
            what = "no" if wanted not in header else "more than one"
            raise MetadataError(
                f"label file {path} has {what} column {wanted!r}; its header is {separator.join(lines[0][1])[:80]!r}: "
                "the first line must name the columns `path,label`"
            )
    if len(lines) == 1:
        raise MetadataError(f"label file {path} has a header and no rows")
    for number, row in lines[1:]:
        if len(row) > len(header):
            raise MetadataError(
                f"row {number} of {path} has {len(row)} fields, the header {len(header)}: put a field that holds "
                f"{separator!r} into double quotes"
            )
    columns = {name: header.index(name) for name in (PATH, LABEL, TARGET) if name in header}
    return columns, [(number, row + [""] * (len(header) - len(row))) for number, row in lines[1:]]


def _numbered_rows(stream: Iterable[str], separator: str) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(stream, delimiter=separator)
    for row in reader:
        if any(field.strip() for field in row):
            yield reader.line_num, row


def _require_filled(path: Path, rows: Sequence[tuple[int, list[str]]], columns: dict[str, int]) -> None:
    pathless = [f"row {number}" for number, row in rows if not row[columns[PATH]]]
    if pathless:
        raise MetadataError(f"{len(pathless)} of {len(rows)} rows of {path} have no path:{shortened(pathless)}")
    unlabelled = [f"row {number}: {row[columns[PATH]]}" for number, row in rows if not row[columns[LABEL]]]
    if unlabelled:
        raise MetadataError(
            f"{len(unlabelled)} of {len(rows)} images of {path} have no label:{shortened(unlabelled)}\n"
            "Fill the column `label` in, or take these rows out."
        )


def _below(path: Path, number: int, text: str, root: Path) -> str:
    try:
        return relative_to_root(text, root)
    except MetadataError as cause:
        raise MetadataError(f"row {number} of {path}: {cause}; another root is given with --root") from cause


def _require_once(path: Path, paths: Sequence[str], numbers: Sequence[int]) -> None:
    first: dict[str, int] = {}
    twice = []
    for name, number in zip(paths, numbers, strict=True):
        if first.setdefault(name, number) != number:
            twice.append(f"{name} (rows {first[name]} and {number})")
    if twice:
        raise MetadataError(
            f"{len(twice)} paths stand more than once in {path}:{shortened(twice)}\nEach image has one row, one label."
        )


def _number(path: Path, number: int, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise MetadataError(f"row {number} of {path}: target {text!r} is not a whole number from 0")
    return int(text)


def _numbered(path: Path, labels: Sequence[str], targets: Sequence[int]) -> list[str]:
    named: dict[int, str] = {}
    for label, target in zip(labels, targets, strict=True):
        if named.setdefault(target, label) != label:
            raise MetadataError(f"{path} gives the target {target} to both {named[target]!r} and {label!r}")
    if len(set(named.values())) < len(named):
        raise MetadataError(f"{path} gives one label several targets: number each label once")
    return [named.get(target, str(target)) for target in range(max(named) + 1)]
