"""Lists of images: walking large folder trees, and text files of one relative path a line.

Reading a folder waits for the disk, on a network far longer than it computes: folders are read by threads.
"""

from __future__ import annotations

import os
import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dinov2_noise.errors import MetadataError, MissingFolderError
from dinov2_noise.files import is_folder, is_image_name, list_images

WALKERS = 16

_MARKS = ("", "#", " ", "\t")  # what a line that says nothing may begin with

T = TypeVar("T")
R = TypeVar("R")


def ordered(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """``map`` by threads, in order; at most four results per thread wait to be taken."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def walk(root: Path, workers: int = WALKERS) -> Iterator[list[str]]:
    """Relative POSIX paths of all images below ``root``, those of a folder at a time.

    They are those of `dinov2_noise.files.list_images`; where there are none, nothing. Only the folders that are just
    being read are in memory.
    """
    if not root.is_dir():
        return
    images, folders = read_folder(root, "")
    yield images
    below: list[str] = []
    for folder in folders:  # two levels, such as train/<class>: as many jobs as there are classes
        images, deeper = read_folder(root, folder)
        yield images
        below += deeper
    yield from ordered(lambda folder: _below(root, folder), below, workers)


def read_folder(root: Path, folder: str) -> tuple[list[str], list[str]]:
    """Relative paths of the images and of the folders in ``root/folder`` itself, sorted."""
    images, folders = [], []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = posixpath.join(folder, entry.name)
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                folders.append(path)
            elif is_image_name(entry.name):
                images.append(path)
    return sorted(images), sorted(folders)


def _below(root: Path, folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in list_images(root / folder)]
    except MissingFolderError:  # no image in it
        return []


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of the lines of a file that are neither blank nor comments, without their ends.

    UTF-8, with or without byte-order mark, LF or CRLF. A comment begins with ``#``; a name that begins so is written
    ``./#name``. Bytes that are no UTF-8 stay those bytes, as in names of files.

    Raises:
        MissingFolderError: there is no such file.
        MetadataError: it cannot be read, or is no text.
    """
    if not path.is_file():
        raise MissingFolderError(f"list {path} {'is a folder' if path.exists() else 'does not exist'}: check the path")
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                text = line.rstrip("\r\n")
                if "\0" in text:
                    raise MetadataError(f"list {path} is no text: expected one relative path a line")
                if text[:1] not in _MARKS or (text.strip() and not text.lstrip().startswith("#")):
                    yield number, text
    except OSError as cause:
        raise MetadataError(f"cannot read list {path}: {cause}") from cause


def relative_to_root(path: str, root: Path) -> str:
    """A path of a list as images' seeds need it: relative to ``root``, ``/`` between folders, without ``.``.

    Absolute paths below ``root`` are shortened, by their names alone: links are not followed.

    Raises:
        MetadataError: it leads out of ``root``.
    """
    if path[0] not in "./" and "//" not in path and "/." not in path and path[-1] != "/":
        return path  # of a million, nearly all
    clean = posixpath.normpath(path)
    if clean.startswith("/"):
        clean = posixpath.relpath(clean, os.path.abspath(root))
    if clean == ".." or clean.startswith("../") or clean == ".":
        raise MetadataError(f"{path!r} does not lie below {root}: paths are relative to that root")
    return clean


def written(path: str) -> str:
    """``path`` as a line of a list, without its end.

    Raises:
        MetadataError: no list can hold it.
    """
    if "\n" in path or "\r" in path:
        raise MetadataError(f"{path!r} has a line break in its name, which no list can hold: rename it")
    return f"./{path}" if path.lstrip().startswith("#") else path
