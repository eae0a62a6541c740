"""Images → a table of features: in order, whatever the number of workers, whole or not written at all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dinov2_noise.decoding import ValueRange
from dinov2_noise.errors import ConfigError, ImageError, OutputFolderError
from dinov2_noise.evaluation.image_stream import stream
from dinov2_noise.evaluation.records import versions
from dinov2_noise.export.features import Features, Tokens, load
from dinov2_noise.export.images import Failed, Images, Options, open_images
from dinov2_noise.export.tables import Table, writer_for
from dinov2_noise.noise import DEFAULT_SEED, parse
from dinov2_noise.noise.pool import check_failures, require_skip_bad

TokenChoice = Literal["cls", "mean-patch", "cls+mean", "patches"]
TOKEN_CHOICES: tuple[TokenChoice, ...] = get_args(TokenChoice)
_ADVICE = "Repair or remove them and run the same command again."


def token_choice(text: str) -> TokenChoice:
    """``text``, if it names tokens.

    Raises:
        ConfigError: it does not.
    """
    for choice in TOKEN_CHOICES:
        if choice == text:
            return choice
    raise ConfigError(f"tokens {text!r} are unknown: valid are {', '.join(TOKEN_CHOICES)}")


@dataclass(frozen=True)
class Batching:
    """Which tokens, images per forward pass, processes that read them, images that may be left out."""

    tokens: TokenChoice = "cls"
    batch_size: int = 64
    workers: int = 4
    skip_bad: int = 0

    def check(self) -> None:
        """
        Raises:
            ConfigError: an option is out of range.
        """
        token_choice(self.tokens)
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(f"batch size {self.batch_size}, workers {self.workers}: at least 1 and 0 are needed")
        require_skip_bad(self.skip_bad)


@dataclass(frozen=True, kw_only=True)
class EmbedRequest(Batching):
    """What is asked for.

    Attributes:
        images: files, folders, dataset strings. run: see `load`. out: ``.parquet``, ``.npz`` or ``.npy``.
        values: which values are black and white in files; None: the run's own. noise, seed: added on the fly to files.
    """

    images: Sequence[str]
    run: Path
    out: Path
    device: str = "auto"
    size_px: int | None = None
    values: ValueRange | None = None
    noise: str | None = None
    seed: int = DEFAULT_SEED

    def check(self) -> None:
        """What can be checked before anything is read.

        Raises:
            ConfigError: an option is out of range, or the library for the table is missing.
            OutputFolderError: ``out`` exists.
        """
        super().check()
        writer_for(self.out)
        if self.out.exists():
            raise OutputFolderError(
                f"{self.out} exists already, and tables are not added to: delete it or choose another name"
            )


@dataclass(frozen=True)
class Embedded:
    """What came out.

    Attributes:
        n_images: rows of the table. width: numbers per row. skipped: paths left out. seconds: of reading and computing
            together. waiting_s: of these without images to compute on.
    """

    n_images: int
    width: int
    skipped: Sequence[str]
    seconds: float
    waiting_s: float


class Batch(NamedTuple):
    """Numbers of images, their features (n, …), those that failed, and the time it took to get them all."""

    indices: list[int]
    values: NDArray[np.float32]
    failures: list[ImageError]
    waiting_s: float


def embed(request: EmbedRequest) -> Embedded:
    """Write the table.

    Raises:
        ConfigError, OutputFolderError: see `EmbedRequest.check`.
        MissingFolderError, CheckpointError: the run or the images are not there, see `load` and `open_images`.
        ImageError: more images than ``skip_bad`` cannot be read; nothing is written.
        WriteError: the table cannot be written.
    """
    request.check()
    features = load(request.run, request.device, size_px=request.size_px, values=request.values)
    options = Options(
        values=features.preprocessing.values,
        full_depth=features.preprocessing.full_depth,
        noise=None if request.noise is None else parse(request.noise),
        seed=request.seed,
    )
    images = open_images(request.images, features.preprocessing, options)
    table = Table(request.out, len(images), images.has_labels, _metadata(request, features, options, images))
    failures: list[ImageError] = []
    start, waiting_s = time.perf_counter(), 0.0
    with table.writing():
        for batch in embedded(features, images, request):
            failures += batch.failures
            waiting_s += batch.waiting_s
            table.add(batch.values, *_names(images, batch.indices))
        skipped = check_failures(failures, total=len(images), skip_bad=request.skip_bad, advice=_ADVICE)
    return Embedded(table.rows, table.width, skipped, time.perf_counter() - start, waiting_s)


def _names(images: Images, indices: Sequence[int]) -> tuple[list[str], list[str | None]]:
    return [_text(images.path(index)) for index in indices], [images.label(index) for index in indices]


def _text(path: str) -> str:
    """A path that is not UTF-8, as tables want texts."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def features_of(
    features: Features, inputs: Sequence[str | Path], *, tokens: TokenChoice, batch_size: int, workers: int
) -> NDArray[np.float32]:
    """See `Features.embed`."""
    how = Batching(tokens, batch_size, workers)
    how.check()
    used = features.preprocessing
    images = open_images([str(item) for item in inputs], used, Options(used.values, used.full_depth))
    batches = list(embedded(features, images, how))
    check_failures([failure for batch in batches for failure in batch.failures], total=len(images), advice=_ADVICE)
    return np.concatenate([batch.values for batch in batches])


def embedded(features: Features, images: Images, how: Batching) -> Iterator[Batch]:
    """Features batch by batch, in order; a batch does not depend on the number of workers.

    Once more images than ``how.skip_bad`` have failed, the rest are only read, to name all that fail.
    """
    size = how.batch_size
    numbers = [list(range(start, min(start + size, len(images)))) for start in range(0, len(images), size)]
    loaded = stream(images, numbers, workers=how.workers, description=f"embed, batches of {size}")
    start, failed = time.perf_counter(), 0
    for indices, items in zip(numbers, loaded, strict=True):
        waiting_s = time.perf_counter() - start
        failures = [item.error for item in items if isinstance(item, Failed)]
        failed += len(failures)
        good = [(index, item) for index, item in zip(indices, items, strict=True) if not isinstance(item, Failed)]
        if failed > how.skip_bad or not good:
            yield Batch([], np.empty((0, 0), np.float32), failures, waiting_s)
        else:
            tokens = features(torch.from_numpy(np.stack([item for _, item in good])))
            yield Batch([index for index, _ in good], _chosen(tokens, how.tokens), failures, waiting_s)
        start = time.perf_counter()


def _chosen(found: Tokens, tokens: TokenChoice) -> NDArray[np.float32]:
    mean = found.patches.mean(dim=1)
    several = {
        "cls": lambda: found.cls,
        "mean-patch": lambda: mean,
        "cls+mean": lambda: torch.cat((found.cls, mean), dim=1),
        "patches": lambda: found.patches,
    }
    chosen = several[tokens]().float().cpu().contiguous()  # a view would keep all tokens of the batch in memory
    values: NDArray[np.float32] = chosen.numpy()
    return values


def _metadata(request: EmbedRequest, features: Features, options: Options, images: Images) -> dict[str, Any]:
    """What tells a table from another one, whatever the files are called."""
    noise = {} if options.noise is None else {"noise": options.noise.name, "seed": options.seed}
    digest = hashlib.sha256()
    for index in range(len(images)):  # not joined: of a large set they are hundreds of megabytes
        digest.update(f"{images.path(index)}\n".encode("utf-8", "replace"))
    return {
        "model": features.name,
        "weights": features.weights_hash,
        "tokens": request.tokens,
        "preprocessing": features.preprocessing.plain(),
        **noise,
        "sources": list(request.images),
        "paths_sha256": digest.hexdigest(),
        "versions": versions(),
    }
