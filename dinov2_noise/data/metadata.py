"""The files of ImageNet-style metadata: written piece by piece, and replaced together.

Per split, here TRAIN with n images and c classes:

=======================  ==========================================================================================
``entries-TRAIN.npy``      (n,) records (actual_index u4, class_index u4, class_id U, class_name U), DINOv2's format
``class-ids-TRAIN.npy``    (c,) U, by class index
``class-names-TRAIN.npy``  (c,) U, by class index
``paths-TRAIN.npy``        (n,) S, UTF-8 paths relative to the root: ours, so that file names need not be ImageNet's
=======================  ==========================================================================================

Beside them ``dinov2-noise-index.json`` tells whether all files are of one run: they take their names one after the
other, and a run may be killed in between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import MetadataError
from dinov2_noise.files import atomic_path, flush_to_disk, write_json

RECORD_NAME = "dinov2-noise-index.json"
LISTING_NAME = "listing.txt"

# DINOv2's mark of an image without label; a class index never gets there.
UNLABELLED = 2**32 - 1


def default_extra(root: Path) -> Path:
    """Where the metadata of ``root`` are unless said otherwise: ``<root>-extra``, beside it."""
    absolute = Path(os.path.abspath(root))
    return absolute.with_name(absolute.name + "-extra")


def encode_paths(paths: Sequence[str]) -> NDArray[np.bytes_]:
    """Relative paths as one (n,) array of bytes, which workers share and map; read with :func:`decode_path`."""
    width = max((len(encode_path(path)) for path in paths), default=1)
    return np.fromiter(map(encode_path, paths), dtype=f"S{width}", count=len(paths))


def encode_path(path: str) -> bytes:
    """A path as UTF-8; bytes of a name that is none are those bytes."""
    return path.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    """One element of :func:`encode_paths` as text."""
    return path.decode("utf-8", "surrogateescape")


def entries_dtype(class_ids: Sequence[str], names: Mapping[str, str]) -> np.dtype[np.void]:
    """Of the records of a split with these classes."""
    longest = max(map(len, class_ids), default=0), max((len(names[class_id]) for class_id in class_ids), default=0)
    texts = [(field, f"U{length}") for field, length in zip(("class_id", "class_name"), longest, strict=True)]
    return np.dtype([("actual_index", "<u4"), ("class_index", "<u4"), *texts])


def write_header(file: BinaryIO, dtype: np.dtype[Any], count: int) -> None:
    """What ``np.save`` writes before the elements of a (count,) array."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)


@contextmanager
def replaced(extra: Path, names: Sequence[str], counts: Mapping[str, int]) -> Iterator[dict[str, Path]]:
    """Yield temporary paths for files ``names`` in ``extra``; if the block succeeds, all take their names together.

    Args:
        extra: the folder of the metadata.
        names: of the files.
        counts: images per split, filled by the block; written to the record.

    Raises:
        WriteError: a file cannot be written.
    """
    record = extra / RECORD_NAME
    with ExitStack() as files:
        temporary = {name: files.enter_context(atomic_path(extra / name)) for name in names}
        yield temporary
        for path in temporary.values():
            flush_to_disk(path)
        write_json(record, {"complete": False})
    write_json(record, {"complete": True, "images": dict(counts)})


def check_record(extra: Path, advice: str) -> None:
    """Check that the metadata in ``extra`` are of one run of ``index``; others' have no record.

    Raises:
        MetadataError: the last run was stopped while it replaced them, or the record cannot be read.
    """
    path = extra / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as cause:
        raise MetadataError(f"cannot read {path} ({cause}): {advice} again") from cause
    if not isinstance(record, dict) or record.get("complete") is not True:
        raise MetadataError(f"the metadata in {extra} are partly of an older run, which was stopped: {advice} again")
