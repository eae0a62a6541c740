"""A backbone and what classifies its features, behind one interface: images in, predicted classes out.

`open_probe` makes one from files. The linear classifier is chosen once, on clean validation images; upstream's
`eval/linear.py`, run on a corrupted validation set, would choose it on the very images it is judged by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dinov2_noise import data
from dinov2_noise.configs import config_file
from dinov2_noise.denoise.device import choose_device
from dinov2_noise.errors import CheckpointError, ConfigError
from dinov2_noise.evaluation.counting import LoaderSettings, batches, count, labels_of, n_classes_of
from dinov2_noise.evaluation.identity import dataset_identity, file_hash
from dinov2_noise.files import write_json
from dinov2_noise.upstream.probing import neighbours
from dinov2_noise.upstream.probing.heads import Head, head_predictions, heads_file, read_heads, require_fit
from dinov2_noise.upstream.probing.model import (
    FeatureModel,
    Geometry,
    autocast_dtype,
    eval_transform,
    load_backbone_for_evaluation,
)
from dinov2_noise.upstream.probing.neighbours import Neighbours, require_votes


@dataclass(frozen=True)
class ProbeRequest:
    """What to probe and with what.

    Attributes:
        config_file: ``config.yaml`` of the run. weights: its teacher checkpoint.
        val_dataset: dataset string of the clean validation images.
        classifiers: output folder of upstream's linear probe, or a file in it; None: no linear probe.
        train_dataset: dataset string of the images that vote. knn: numbers of neighbours; empty: no k-NN.
        geometry: see `model.eval_transform`.
        batch_size, workers, device: of no influence on what comes out, rounding aside.
    """

    config_file: Path
    weights: Path
    val_dataset: str
    classifiers: Path | None = None
    train_dataset: str | None = None
    knn: Sequence[int] = ()
    geometry: Geometry = "upstream"
    batch_size: int = 128
    workers: int = 4
    device: str = "auto"

    def check(self, *, heads_follow: bool = False) -> None:
        """Check what can be checked before the network is loaded; ``heads_follow``: heads are yet to be trained.

        Raises:
            ConfigError: options contradict each other, or there is no such device.
            MetadataError: images have no labels.
        """
        if self.classifiers is None and not self.knn and not heads_follow:
            raise ConfigError(
                "nothing to probe with: give --classifiers (the output folder of upstream's linear.py), or, for k-NN, "
                "--knn 20 and --train-dataset ImageNet:split=TRAIN:root=…"
            )
        if self.knn and self.train_dataset is None:
            raise ConfigError("k-NN needs the images that vote: add --train-dataset ImageNet:split=TRAIN:root=…")
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(f"batch size {self.batch_size}, workers {self.workers}: at least 1 and 0 are needed")
        choose_device(self.device)
        n_classes = n_classes_of(data.make(self.val_dataset), self.val_dataset)
        if self.knn and self.train_dataset is not None:
            voters: Any = data.make(self.train_dataset)
            require_votes(labels_of(voters, self.train_dataset), self.knn)
            if (found := n_classes_of(voters, self.train_dataset)) < n_classes:
                raise ConfigError(
                    f"the images of {self.train_dataset} have {found} classes, those of {self.val_dataset} "
                    f"{n_classes}: give the training images of the same data set"
                )

    def identity(self) -> dict[str, Any]:
        """What decides the predictions, and tells a folder of results from others."""
        voters = {"k": list(self.knn), "images": dataset_identity(self.train_dataset or "")} if self.knn else {}
        return {
            "weights": file_hash(self.weights),
            "config": file_hash(Path(config_file(str(self.config_file)))),
            "classifiers": {} if self.classifiers is None else {"hash": file_hash(heads_file(self.classifiers))},
            "knn": voters,
            "images": dataset_identity(self.val_dataset),
            "geometry": self.geometry,
        }


@dataclass(frozen=True)
class HeadChoice:
    """Which linear classifier was chosen, on clean validation images.

    Attributes:
        name: the best one; the first in upstream's order where several are best.
        n_images: images it was chosen on. right: images told right, for every head.
    """

    name: str
    n_images: int
    right: Mapping[str, int]
    dataset: str


@dataclass(frozen=True)
class Probe:
    """Predicts classes of images.

    Attributes:
        choice: how the linear classifier was chosen; None without one.
    """

    model: FeatureModel
    head: Head | None = None
    neighbours: Neighbours | None = None
    choice: HeadChoice | None = None
    settings: LoaderSettings = field(default_factory=lambda: LoaderSettings(eval_transform()))

    @property
    def kinds(self) -> tuple[str, ...]:
        """``linear`` and ``knn<k>``, as far as there are such."""
        linear = ("linear",) if self.head is not None else ()
        return (*linear, *(f"knn{k}" for k in (self.neighbours.ks if self.neighbours else ())))

    @torch.inference_mode()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Predicted class (B,) for each of `kinds`, of images (B, 3, H, W), normalised as by `model.eval_transform`."""
        tokens = self.model(images)
        found = {} if self.head is None else {"linear": self.head(tokens).argmax(dim=1)}
        if self.neighbours is not None:
            by_k = self.neighbours.predict(tokens[-1][1])
            found |= {f"knn{k}": classes for k, classes in by_k.items()}
        return found


@dataclass(frozen=True)
class Loaded:
    """Backbone and heads of a request, found to fit together; nothing is computed or written yet."""

    request: ProbeRequest
    model: FeatureModel
    heads: Sequence[Head]
    settings: LoaderSettings

    def probe(self, keep: Path) -> Probe:
        """Choose the linear classifier, compute the training features.

        Args:
            keep: folder for the choice (``classifier-….json``) and the features (``features-….pt``), which are read
                from there the next time; their names tell weights, config and images apart.

        Raises:
            CheckpointError: what is kept there cannot be read.
            DinoNoiseError: an image cannot be read.
        """
        head = choice = voters = None
        if self.heads:
            choice = _chosen(self.request, self.model, self.heads, self.settings, keep)
            head = next(candidate for candidate in self.heads if candidate.name == choice.name)
        if self.request.knn:
            voters = _voters(self.request, self.model, self.settings, keep).to(self.model.device)
        return Probe(self.model, head, voters, choice, self.settings)


def load(request: ProbeRequest) -> Loaded:
    """Load all that ``request`` names.

    Raises:
        CheckpointError, ConfigError, MetadataError: files do not fit together; see there.
    """
    request.check()
    device = choose_device(request.device)
    transform = eval_transform(request.geometry)
    settings = LoaderSettings(transform, request.batch_size, request.workers, pin=device.type == "cuda")
    backbone = load_backbone_for_evaluation(request.config_file, request.weights, device)
    model = FeatureModel(backbone, autocast_dtype(request.config_file, device))
    heads: list[Head] = []
    if request.classifiers is not None:
        heads = read_heads(request.classifiers)
        n_classes = n_classes_of(data.make(request.val_dataset), request.val_dataset)
        require_fit(heads, model, n_classes, request.classifiers)
    return Loaded(request, model, [head.to(device) for head in heads], settings)


def open_probe(request: ProbeRequest, *, keep: Path) -> Probe:
    """`load` and `Loaded.probe` in one."""
    return load(request).probe(keep)


def choose_head(model: FeatureModel, heads: Sequence[Head], dataset: str, settings: LoaderSettings) -> HeadChoice:
    """Score all heads on the images of a dataset string; the first of the best is chosen, as upstream does."""

    def predict(images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return head_predictions(heads, model(images))

    (_, found), *_ = count([dataset], predict, settings, description="choosing the classifier")
    best = max(found.right, key=lambda name: found.right[name])  # max keeps the first of equals
    return HeadChoice(best, found.n_images, dict(found.right), dataset)


def kept_choice(request: ProbeRequest, keep: Path) -> HeadChoice | None:
    """The choice that `open_probe` left in ``keep``; None where there is none yet, or no linear probe.

    Raises:
        CheckpointError: it cannot be read.
    """
    if request.classifiers is None:
        return None
    path = _choice_path(request, request.classifiers, keep)
    if not path.is_file():
        return None
    try:
        choice = HeadChoice(**json.loads(path.read_text(encoding="utf-8")))
        choice.right[choice.name]
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise CheckpointError(f"{path} tells no classifier ({cause!r}): delete it, it is chosen again") from cause
    return choice


def _chosen(
    request: ProbeRequest, model: FeatureModel, heads: Sequence[Head], settings: LoaderSettings, keep: Path
) -> HeadChoice:
    assert request.classifiers is not None
    choice = kept_choice(request, keep)
    if choice is None:
        choice = choose_head(model, heads, request.val_dataset, settings)
        write_json(_choice_path(request, request.classifiers, keep), asdict(choice))
    return choice


def _choice_path(request: ProbeRequest, classifiers: Path, keep: Path) -> Path:
    return keep / f"classifier-{_key(request, file_hash(heads_file(classifiers)), request.val_dataset)}.json"


def _voters(request: ProbeRequest, model: FeatureModel, settings: LoaderSettings, keep: Path) -> Neighbours:
    assert request.train_dataset is not None
    path = keep / f"features-{_key(request, 'cls', request.train_dataset)}.pt"
    if not path.is_file():
        features, labels = extract(model, request.train_dataset, settings)
        neighbours.save_features(path, features, labels)
    return Neighbours(*neighbours.load_features(path), tuple(request.knn))


@torch.inference_mode()
def extract(model: FeatureModel, dataset: str, settings: LoaderSettings) -> tuple[Tensor, Tensor]:
    """Class tokens of unit length (N, D), float32, and classes (N,) of the images of a dataset string."""
    features, labels = [], []
    for batch in batches([dataset], settings, description="training features"):
        features.append(normalize(model(batch.images)[-1][1].float(), dim=1).cpu())
        labels.append(batch.targets)
    return torch.cat(features), torch.cat(labels)


def _key(request: ProbeRequest, of: str, dataset: str) -> str:
    """Name of what follows from weights, config, images and their geometry."""
    parts: Iterable[object] = (
        file_hash(request.weights),
        file_hash(Path(config_file(str(request.config_file)))),
        request.geometry,
        of,
        dataset_identity(dataset),
    )
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()[:12]
