"""A linear or k-NN probe on labelled images with any noises: features, classifier, floors, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluation.classification import Answers
from dinov2_noise.evaluation.floors import chance, colour_knn
from dinov2_noise.evaluation.label_noise import CLEAN, Noises
from dinov2_noise.evaluation.label_results import Outcome
from dinov2_noise.evaluation.label_sources import Indices, Source
from dinov2_noise.evaluation.label_task import Task
from dinov2_noise.evaluation.logistic import Fitted, fit, require_solver
from dinov2_noise.evaluation.snr import snr_of_dataset
from dinov2_noise.evaluation.stored_noise import stored_noise
from dinov2_noise.upstream.probing.model import N_LAST_BLOCKS
from dinov2_noise.upstream.probing.neighbours import Neighbours
from dinov2_noise.upstream.probing.own_features import Features, FeatureStore, as_rows

Scores = NDArray[np.float64]
_CHUNK = 1024


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on class tokens of the last blocks and the mean patch token; see `evaluation.logistic`.

    Attributes:
        n_blocks: whose class tokens it reads. avgpool: whether it reads the mean patch token. seed: of the draw of the
            images that the regularisation is chosen on.
    """

    n_blocks: int = 1
    avgpool: bool = True
    seed: int = 0
    kind: Literal["linear"] = "linear"
    metric: str = "logistic"  # linear_top1 is what upstream's linear.py measures

    def check(self, task: Task) -> None:
        """Check that it can be fitted.

        Raises:
            ConfigError: no such number of blocks. MissingFolderError: a library is missing.
        """
        del task
        if not 1 <= self.n_blocks <= N_LAST_BLOCKS:
            raise ConfigError(f"--blocks {self.n_blocks}: from 1 to {N_LAST_BLOCKS}")
        require_solver()

    def described(self) -> dict[str, Any]:
        """For records."""
        return {"probe": "logistic regression", "blocks": self.n_blocks, "avgpool": self.avgpool, "seed": self.seed}

    def scores(self, fitted_on: Features, targets: Indices, tested: Features, n: int) -> tuple[Scores, dict[str, Any]]:
        """(N, C) probabilities of the tested images, and how the classifier was chosen."""
        train, test = (features.linear_input(self.n_blocks, self.avgpool).numpy() for features in (fitted_on, tested))
        found = fit(train, targets, n, seed=self.seed)
        return found.probabilities(test), _choice(found)

    def colour_answers(self, fitted_on: Tensor, targets: Indices, tested: Tensor, n: int) -> Indices:
        """Classes that the same kind of probe tells by mean colour and colour histogram."""
        found = fit(fitted_on.numpy(), targets, n, seed=self.seed)
        return np.asarray(found.probabilities(tested.numpy()).argmax(axis=1), np.int64)


@dataclass(frozen=True)
class KnnProbe:
    """Upstream's weighted k-NN on the class token of the last block; see `probing.neighbours`.

    Attributes:
        ks: numbers of neighbours; the first is the one that is reported.
    """

    ks: Sequence[int] = (20,)
    kind: Literal["knn"] = "knn"
    metric: str = "knn"

    def check(self, task: Task) -> None:
        """Check that there are as many images as are to vote.

        Raises:
            ConfigError: there are not.
        """
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ConfigError(f"--k {','.join(map(str, self.ks))}: different numbers from 1, such as 20 or 10,20")
        if max(self.ks) > task.least_fitted:
            raise ConfigError(
                f"--k {max(self.ks)}: only {task.least_fitted} training images can vote: give a smaller --k, or more "
                "images"
            )

    def described(self) -> dict[str, Any]:
        """For records."""
        return {"probe": "k-NN", "k": self.ks[0]}

    def scores(self, fitted_on: Features, targets: Indices, tested: Features, n: int) -> tuple[Scores, dict[str, Any]]:
        """(N, C) votes for the first k, and the classes (N,) told with each k."""
        voters = normalize(fitted_on.class_tokens[:, -1], dim=1)
        neighbours = Neighbours(voters, torch.as_tensor(targets), self.ks)
        chunks = [neighbours.votes(chunk) for chunk in tested.class_tokens[:, -1].split(_CHUNK)]
        votes = {k: torch.cat([chunk[k] for chunk in chunks]).double().numpy() for k in self.ks}
        assert votes[self.ks[0]].shape[1] == n  # every class has a training image
        return votes[self.ks[0]], {"told": {k: found.argmax(axis=1) for k, found in votes.items()}}

    def colour_answers(self, fitted_on: Tensor, targets: Indices, tested: Tensor, n: int) -> Indices:
        """Classes that as many neighbours in mean colour tell."""
        del n
        colours = fitted_on[:, :3].numpy(), tested[:, :3].numpy()
        return np.asarray(colour_knn(colours[0], targets, colours[1], self.ks[0]), np.int64)


@dataclass(frozen=True)
class OwnLabels:
    """What is asked for.

    Attributes:
        task: classes, images and folds, with dataset strings. noises: of the images. probe: what tells classes.
        store: features of the network. random: of one with random weights; None leaves that floor out.
    """

    task: Task
    noises: Noises
    probe: LinearProbe | KnnProbe
    store: FeatureStore
    random: FeatureStore | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def outcome(self, name: str) -> Outcome:
        """The probe with the noise ``name``; features that are kept are not computed again.

        Raises:
            DinoNoiseError: an image cannot be read, or weights do not fit.
        """
        train, val = self._features(self.store, name)
        answers, chosen = self._answers(self.probe.scores, train, val)
        floors = {"chance": self._chance(), "colour": colour_floor(self.task, self.probe, train.colour, val.colour)}
        if self.random is not None:
            random, _ = self._answers(self.probe.scores, *self._features(self.random, name))
            floors["random"] = float((random.predicted == random.targets).mean())
        label, details = noise_facts(self.task, self.noises, name)
        details |= {**self.probe.described(), **self._merged(chosen), **self.facts}
        return Outcome(name, label, self.noises.datasets(self.task, name)[1], answers, floors, details)

    def _features(self, store: FeatureStore, name: str) -> tuple[Features, Features]:
        found = []
        for dataset, part in zip(self.noises.datasets(self.task, name), (self.task.train, self.task.val), strict=True):
            what = f"features, {name}" if store.weights else f"features of a random network, {name}"
            found.append(store.of(dataset, what).rows(as_rows(part.rows)))
        return found[0], found[1]

    def _answers(
        self, scores: Callable[..., tuple[Scores, dict[str, Any]]], train: Features, val: Features
    ) -> tuple[Answers, list[tuple[Indices, dict[str, Any]]]]:
        task = self.task
        found, chosen = np.zeros((len(task.val), task.n_classes)), []
        for fitted, tested in task.folds:
            parts = train.rows(as_rows(fitted)), task.train.targets[fitted], val.rows(as_rows(tested)), task.n_classes
            found[tested], how = scores(*parts)
            chosen.append((tested, how))
        return Answers(task.val.targets, found), chosen

    def _merged(self, chosen: Sequence[tuple[Indices, dict[str, Any]]]) -> dict[str, Any]:
        """How the classifiers of all folds were chosen, for records."""
        if isinstance(self.probe, LinearProbe):
            keys = ("strength", "chosen_on", "has_converged")
            lists = {key: [how[key] for _, how in chosen] for key in keys}
            return {key: values[0] if len(values) == 1 else values for key, values in lists.items()}
        targets, right = self.task.val.targets, dict.fromkeys(self.probe.ks, 0)
        for tested, how in chosen:
            for k, told in how["told"].items():
                right[k] += int((told == targets[tested]).sum())
        return {"top1_by_k": {str(k): count / len(targets) for k, count in right.items()}}

    def _chance(self) -> float:
        train, val = self.task.train.targets, self.task.val.targets
        levels = [chance(train[fit].tolist(), val[test].tolist()) * len(test) for fit, test in self.task.folds]
        return sum(levels) / len(val)


def colour_floor(task: Task, probe: LinearProbe | KnnProbe, train: Tensor, val: Tensor) -> float:
    """Accuracy of the same kind of probe on colours alone: (N, 51) of the task's training and validation images."""
    right = 0
    for fitted, tested in task.folds:
        parts = train[as_rows(fitted)], task.train.targets[fitted], val[as_rows(tested)]
        right += int((probe.colour_answers(*parts, task.n_classes) == task.val.targets[tested]).sum())
    return right / len(task.val)


def noise_facts(task: Task, noises: Noises, name: str) -> tuple[str, dict[str, Any]]:
    """Label of the validation images' noise, and what records say of it."""
    val = task.val
    train_noise = _label(task.train.source, noises.train_name(name))
    stored = stored_noise(val.source) if name == CLEAN else None
    if stored is not None:
        return stored.label, {"train_noise": train_noise, "snr_db": stored.snr_db(val.source, val.paths)}
    dataset = noises.datasets(task, name)[1]
    return name, {"train_noise": train_noise, "snr_db": snr_of_dataset(dataset, val.rows)}


def _label(source: Source, name: str) -> str:
    stored = stored_noise(source) if name == CLEAN else None
    return name if stored is None else stored.label


def _choice(found: Fitted) -> dict[str, Any]:
    return {"strength": found.strength, "chosen_on": found.chosen_on, "has_converged": found.has_converged}
