"""Tables of features: Parquet, row group by row group; NPZ and NPY, held in memory until they are complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import ConfigError
from dinov2_noise.export.extras import require
from dinov2_noise.files import atomic_path, write_json

METADATA_KEY = b"dinov2_noise"
_SUFFIXES = (".parquet", ".npz", ".npy")
_GROUP_NUMBERS = 2**24  # of a Parquet row group: 64 MiB


class Writer(Protocol):
    """Takes rows as they come."""

    def add(self, values: NDArray[np.float32], paths: Sequence[str], labels: Sequence[str | None], /) -> None: ...
    def close(self) -> None:
        """Write what is left."""
        ...

    def abandon(self) -> None:
        """Close files; what is in them does not matter."""
        ...


class Plan(NamedTuple):
    """Rows at most, whether some have labels, and what tells this table from others."""

    largest: int
    has_labels: bool
    metadata: Mapping[str, Any]


def writer_for(path: Path) -> Callable[[Path, Plan], Writer]:
    """The writer that the suffix asks for; made with the temporary path and the plan.

    Raises:
        ConfigError: the suffix is another one, or a library is missing.
    """
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"--out {path}: its suffix must be one of {', '.join(_SUFFIXES)}")
    if path.suffix == ".parquet":
        require("pyarrow.parquet", "parquet", "a Parquet table")
        return _Parquet
    return _Npz if path.suffix == ".npz" else _Npy


class Table:
    """A table that takes its name when it is complete.

    Attributes:
        rows: written so far. width: numbers per row, 0 before the first.
    """

    def __init__(self, path: Path, largest: int, has_labels: bool, metadata: Mapping[str, Any]) -> None:
        self._path, self._plan = path, Plan(largest, has_labels, metadata)
        self._writer: Writer | None = None
        self.rows = self.width = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Rows may be added in the block; what is not closed in order leaves nothing behind.

        Raises:
            WriteError: the table cannot be written.
        """
        with atomic_path(self._path) as temporary:
            self._writer = writer = writer_for(self._path)(temporary, self._plan)
            try:
                yield
                writer.close()
            except BaseException:
                writer.abandon()
                raise
            if isinstance(writer, _Npy):
                write_json(self._path.with_name(f"{self._path.name}.json"), writer.beside())

    def add(self, values: NDArray[np.float32], paths: Sequence[str], labels: Sequence[str | None]) -> None:
        """Rows (n, …) and what they are called."""
        if not len(values):
            return
        assert self._writer is not None
        self._writer.add(values, paths, labels)
        self.rows += len(values)
        self.width = int(values[0].size)


class _Held:
    """Rows in memory: the files begin with their number."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path, self._plan = path, plan
        self._values: NDArray[np.float32] | None = None
        self._paths: list[str] = []
        self._labels: list[str | None] = []

    def add(self, values: NDArray[np.float32], paths: Sequence[str], labels: Sequence[str | None]) -> None:
        if self._values is None:
            try:
                self._values = np.empty((self._plan.largest, *values.shape[1:]), np.float32)
            except MemoryError as cause:
                gigabytes = self._plan.largest * values[0].nbytes / 1e9
                raise ConfigError(
                    f"{self._plan.largest:,} images make {gigabytes:.1f} GB of features, more than there is memory: "
                    "write a .parquet, which goes to the disk as it is made"
                ) from cause
        self._values[len(self._paths) : len(self._paths) + len(values)] = values
        self._paths += paths
        self._labels += labels

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, …)"""
        held = np.empty((0, 0), np.float32) if self._values is None else self._values
        return held[: len(self._paths)]

    def abandon(self) -> None:
        self._values = None


class _Npz(_Held):
    """Arrays ``feature``, ``path``, ``label`` (where there are any) and ``metadata``, a JSON text."""

    def close(self) -> None:
        arrays: dict[str, NDArray[Any]] = {"feature": self.features, "path": np.array(self._paths, np.str_)}
        if self._plan.has_labels:
            arrays["label"] = np.array([label or "" for label in self._labels], np.str_)
        arrays["metadata"] = np.array(json.dumps(self._plan.metadata))
        save: Any = np.savez  # its types take any name for an option
        with self._path.open("wb") as file:
            save(file, **arrays)


class _Npy(_Held):
    """The features alone; ``<name>.json`` beside it holds paths, labels and metadata."""

    def close(self) -> None:
        with self._path.open("wb") as file:
            np.save(file, self.features, allow_pickle=False)

    def beside(self) -> dict[str, Any]:
        """What the array cannot hold."""
        labels = {"label": self._labels} if self._plan.has_labels else {}
        return {"path": self._paths, **labels, "metadata": dict(self._plan.metadata)}


class _Parquet:
    """Columns ``path``, ``label`` (where there are any) and ``feature`` (list of fixed size, float32); metadata in the
    schema.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._arrow: Any = require("pyarrow", "parquet", "a Parquet table")
        self._path, self._plan = path, plan
        self._writer: Any = None
        self._group = np.empty((0, 0), np.float32)
        self._paths: list[str] = []
        self._labels: list[str | None] = []

    def add(self, values: NDArray[np.float32], paths: Sequence[str], labels: Sequence[str | None]) -> None:
        if self._writer is None:
            self._open(values.shape[1:], int(values[0].size))
        start = 0
        while start < len(values):
            begin = len(self._paths)
            some = slice(start, start + len(self._group) - begin)
            self._paths += paths[some]
            self._labels += labels[some]
            self._group[begin : len(self._paths)] = values[some].reshape(-1, self._group.shape[1])
            start = some.stop
            if len(self._paths) == len(self._group):
                self._flush()

    def _open(self, shape: Sequence[int], width: int) -> None:
        arrow = self._arrow
        metadata = {**self._plan.metadata, "shape": list(shape)}
        labels = [("label", arrow.string())] if self._plan.has_labels else []
        fields = [("path", arrow.string()), *labels, ("feature", arrow.list_(arrow.float32(), width))]
        self._schema = arrow.schema(fields, metadata={METADATA_KEY: json.dumps(metadata).encode()})
        self._writer = require("pyarrow.parquet", "parquet", "a Parquet table").ParquetWriter(self._path, self._schema)
        # One array for all groups: batches kept one by one between those of images would leave holes that add up.
        self._group = np.empty((max(1, min(self._plan.largest, _GROUP_NUMBERS // width)), width), np.float32)

    def _flush(self) -> None:
        arrow, width = self._arrow, self._group.shape[1]
        columns = [arrow.array(self._paths, arrow.string())]
        if self._plan.has_labels:
            columns.append(arrow.array(self._labels, arrow.string()))
        numbers = arrow.array(self._group[: len(self._paths)].reshape(-1), arrow.float32())
        columns.append(arrow.FixedSizeListArray.from_arrays(numbers, width))
        self._writer.write_table(arrow.Table.from_arrays(columns, schema=self._schema))
        self._paths, self._labels = [], []

    def close(self) -> None:
        if self._writer is not None:
            if self._paths:
                self._flush()
            self._writer.close()

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.close()
