"""Figures of a classification against scikit-learn and slow counts, their intervals, the logistic regression, SNR."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from dinov2_noise.errors import CheckpointError, ConfigError, MissingFolderError
from dinov2_noise.evaluation import intervals
from dinov2_noise.evaluation.classification import Answers, auroc, balanced_accuracy, macro_f1
from dinov2_noise.evaluation.floors import colour_knn, mean_colour_knn
from dinov2_noise.evaluation.intervals import bootstrap_auroc, bootstrap_confusion
from dinov2_noise.evaluation.label_results import largest_confusions, printable
from dinov2_noise.evaluation.logistic import STRENGTHS, fit
from dinov2_noise.evaluation.paired import Paired, compare_predictions, shared_predictions
from dinov2_noise.evaluation.records import wilson
from dinov2_noise.evaluation.snr import snr_db
from dinov2_noise.report.confusion_figures import confusion_figure


def answers(n: int, n_classes: int, seed: int = 0, *, missing: int | None = None) -> Answers:
    """Scores that know something; no validation image of class ``missing``."""
    generator = np.random.default_rng(seed)
    classes = [label for label in range(n_classes) if label != missing]
    targets = generator.choice(classes, size=n)
    scores = generator.random((n, n_classes))
    scores[np.arange(n), targets] += 0.4
    return Answers(targets, scores)


@pytest.mark.parametrize(("n_classes", "missing"), [(2, None), (3, None), (7, None), (7, 3)])
def test_figures_are_those_of_scikit_learn(n_classes: int, missing: int | None) -> None:
    found = answers(200, n_classes, missing=missing)
    figures = found.figures(seed=0)
    truth, told, present = found.targets, found.predicted, np.unique(found.targets)
    assert figures["top1"].value == pytest.approx(metrics.accuracy_score(truth, told))
    f1 = metrics.f1_score(truth, told, labels=present, average="macro")
    assert figures["macro_f1"].value == pytest.approx(f1)
    recalls = metrics.recall_score(truth, told, labels=present, average="macro")
    assert figures["balanced_accuracy"].value == pytest.approx(recalls)
    assert (found.confusion == metrics.confusion_matrix(truth, told, labels=range(n_classes))).all()
    assert ("top5" in figures, "auroc" in figures) == (n_classes >= 6, n_classes == 2)
    if n_classes >= 6:
        expected = metrics.top_k_accuracy_score(truth, found.scores, k=5, labels=range(n_classes))
        assert figures["top5"].value == pytest.approx(expected)
    if n_classes == 2:
        expected = metrics.roc_auc_score(truth, found.scores[:, 1] - found.scores[:, 0])
        assert figures["auroc"].value == pytest.approx(expected)
    for name, figure in figures.items():
        low, high = figure.interval95
        assert 0 <= low <= figure.value <= high <= 1
        assert figure.is_proportion == name.startswith("top")


def test_top_k_breaks_ties_as_argmax_does() -> None:
    found = Answers(np.array([0, 1, 2]), np.array([[0.5, 0.5, 0.0]] * 3))
    assert found.predicted.tolist() == [0, 0, 0]
    assert found.in_top(1).tolist() == [True, False, False]
    assert found.in_top(2).tolist() == [True, True, False]


def test_ties_count_half_in_the_area_under_the_curve() -> None:
    scores = np.round(np.random.default_rng(1).normal(size=60), 1)
    positive = np.arange(60) % 3 == 0
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auroc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores), abs=1e-12)


def _of_resamples(found: Answers, n: int) -> NDArray[np.float64]:
    """Macro F1 of images drawn one by one within each class."""
    generator, values = np.random.default_rng(5), []
    members = [np.flatnonzero(found.targets == label) for label in np.unique(found.targets)]
    for _ in range(n):
        drawn = np.concatenate([generator.choice(own, len(own)) for own in members])
        truth, told = found.targets[drawn], found.predicted[drawn]
        values.append(np.mean([_f1(truth == label, told == label) for label in range(3)]))
    return np.array(values)


def _f1(truth: NDArray[np.bool_], told: NDArray[np.bool_]) -> float:
    precision, recall = truth[told].mean() if told.any() else 0.0, told[truth].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def test_drawing_counts_is_drawing_images() -> None:
    found = answers(90, 3, seed=2)
    slow = np.percentile(_of_resamples(found, 600), [2.5, 97.5])
    fast = bootstrap_confusion(found.confusion, macro_f1, seed=1, n_resamples=4000)
    assert fast == pytest.approx(tuple(slow), abs=0.02)
    assert fast == bootstrap_confusion(found.confusion, macro_f1, seed=1, n_resamples=4000)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    truth = {balanced_accuracy: 2 / 3, macro_f1: float(macro_f1((shares * 1e6).astype(np.int64)[None])[0])}
    held = dict.fromkeys(truth, 0)
    for trial in range(200):
        confusion = np.stack([generator.multinomial(40, row) for row in shares])
        for figure, expected in truth.items():
            low, high = bootstrap_confusion(confusion, figure, seed=trial, n_resamples=400)
            held[figure] += low <= expected <= high
    # 0.95 is meant; 200 trials have a standard error of 0.015, and the percentile bootstrap is a little too narrow.
    assert all(0.89 <= count / 200 <= 0.99 for count in held.values())


def test_the_interval_of_the_area_holds_the_truth() -> None:
    generator, held = np.random.default_rng(0), 0
    positive = np.arange(80) < 30
    for trial in range(150):
        low, high = bootstrap_auroc(generator.normal(positive * 1.0), positive, seed=trial, n_resamples=300)
        held += low <= 0.76025 <= high  # Phi(1 / sqrt(2))
    assert 0.88 <= held / 150 <= 0.99


def test_where_all_is_right_the_interval_still_has_a_width() -> None:
    confusion = np.diag([20, 8])
    assert bootstrap_confusion(confusion, macro_f1, seed=0) == wilson(1.0, 8)
    assert bootstrap_auroc(np.arange(28.0), np.arange(28) >= 20, seed=0) == wilson(1.0, 8)


def test_large_matrices_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    confusion = np.random.default_rng(0).multinomial(30, np.full(10, 0.1), size=10)
    whole = bootstrap_confusion(confusion, balanced_accuracy, seed=0)
    monkeypatch.setattr(intervals, "_BLOCK", 7000)  # 70 resamples at a time
    assert bootstrap_confusion(confusion, balanced_accuracy, seed=0) == pytest.approx(whole, abs=0.01)


def _blobs(n: int, n_classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % n_classes
    centres = generator.normal(size=(n_classes, 5)) * 1.5
    return (centres[targets] + generator.normal(size=(n, 5))).astype(np.float32) * 10 + 3, targets


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_regression_is_the_minimum_for_its_strength(n_classes: int) -> None:
    features, targets = _blobs(120, n_classes)
    found = fit(features, targets, n_classes, seed=0)
    assert found.strength in STRENGTHS
    assert (found.chosen_on, found.has_converged) == (24, True)
    inputs = (features - features.mean(axis=0)) / features.std(axis=0)
    solver = LogisticRegression(C=found.strength, solver="newton-cg", tol=1e-5, max_iter=500).fit(inputs, targets)
    assert found.probabilities(features) == pytest.approx(solver.predict_proba(inputs), abs=1e-3)


def test_the_gradient_vanishes_there() -> None:
    features, targets = _blobs(90, 3)
    found = fit(features, targets, 3, seed=0, strengths=(0.1,))
    inputs = (features - found.mean) / found.scale
    error = found.probabilities(features) - np.eye(3)[targets]
    gradient = found.strength * error.T @ inputs + found.weight
    assert np.abs(gradient).max() < 2e-2
    assert np.abs(error.sum(axis=0)).max() < 2e-2 / found.strength


def test_the_strength_is_chosen_without_the_tested_images() -> None:
    features, targets = _blobs(60, 3)
    noise = np.random.default_rng(1).normal(size=(60, 200)).astype(np.float32)
    mostly_noise = np.concatenate([features, 40 * noise], axis=1)
    shuffled = np.random.default_rng(2).permutation(targets)
    assert fit(mostly_noise, shuffled, 3, seed=0).strength == STRENGTHS[0]  # nothing to learn
    assert fit(features, targets, 3, seed=0).strength > STRENGTHS[1]


def test_few_images_and_absent_classes() -> None:
    features, targets = _blobs(3, 3)
    alone = fit(features, targets, 3, seed=0)
    assert (alone.chosen_on, alone.strength) == (0, 1.0)
    some = fit(features[[0, 2]], np.array([0, 2]), 4, seed=0).probabilities(features)
    assert (some[:, [1, 3]] == 0).all()
    assert some.sum(axis=1) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="two classes"):
        fit(features, np.zeros(3, np.int64), 3, seed=0)


def test_snr_is_the_mean_over_images() -> None:
    clean = np.full((4, 4, 3), 100, np.uint8)
    noisy = [clean + 10, clean + 20, clean, np.zeros_like(clean)]
    expected = [20.0, 20 * math.log10(5), None, 0.0]  # 10 log10(100² / 10²), …; an equal image has none
    found = [snr_db([(clean, image)]) for image in noisy]
    assert found == pytest.approx(expected)
    assert snr_db((clean, image) for image in noisy) == pytest.approx((20 + 20 * math.log10(5) + 0) / 3)
    assert snr_db([(np.zeros_like(clean), clean)]) is None
    with pytest.raises(ValueError, match="of one shape"):
        snr_db([(clean, clean[:2])])


def test_colour_alone_as_before() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (30, 4, 4, 3))
    labels = generator.integers(0, 3, 30)
    told = colour_knn(images[:20].mean(axis=(1, 2)), labels[:20], images[20:].mean(axis=(1, 2)), 5)
    accuracy = mean_colour_knn(list(images[:20]), labels[:20].tolist(), list(images[20:]), labels[20:].tolist(), k=5)
    assert accuracy == np.mean(told == labels[20:])


def test_the_most_frequent_confusions_come_first() -> None:
    scores = np.eye(3)[[1, 1, 2, 0, 0]]
    found = largest_confusions(Answers(np.array([0, 0, 0, 2, 0]), scores), ["a", "b", "c"])
    assert found == [("a", "b", 2), ("a", "c", 1), ("c", "a", 1)]


def test_labels_that_are_not_utf_8_can_be_drawn_and_printed() -> None:
    latin = "Gebäude".encode("latin-1").decode("utf-8", "surrogateescape")  # as label files and folders are read
    assert printable(latin) == "Geb\ufffdude"
    assert printable("Gebäude") == "Gebäude"
    scores = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert largest_confusions(Answers(np.array([0, 1]), scores), [latin, "b"])[0] == ("Geb\ufffdude", "b", 1)


def _predictions(path: Path, right: str, label: str = "a") -> Path:
    rows = "".join(f"{number}.png,{label},{label if mark == '1' else 'z'},0.5\n" for number, mark in enumerate(right))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("path,label,predicted,probability\n" + rows, encoding="utf-8")
    return path


def test_paired_comparison_against_hand_worked_numbers(tmp_path: Path) -> None:
    found = compare_predictions(
        _predictions(tmp_path / "a.csv", "1110000010"), _predictions(tmp_path / "b.csv", "1101111110")
    )
    assert found == Paired(both=3, only_first=1, only_second=5, neither=1)
    assert found.difference == pytest.approx(0.4)
    assert found.p_value() == pytest.approx(2 * (1 + 6) / 2**6)  # six coins, at most one head, two-sided
    # (5.5 - 1.5) / 12 ± z sqrt(7 - 16 / 12) / 12
    assert found.interval() == pytest.approx((1 / 3 - 0.388808, 1 / 3 + 0.388808), abs=1e-5)
    assert Paired(5, 0, 0, 5).p_value() == 1.0


def test_predictions_of_other_images_are_not_compared(tmp_path: Path) -> None:
    first = _predictions(tmp_path / "x" / "knn" / "predictions" / "clean.csv", "101")
    second = _predictions(tmp_path / "y" / "knn" / "predictions" / "clean.csv", "10")
    with pytest.raises(CheckpointError, match="not of the same images"):
        compare_predictions(first, second)
    with pytest.raises(CheckpointError, match="same labels"):
        compare_predictions(first, _predictions(second, "101", label="b"))
    second.write_text("path,x\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="its columns must be"):
        compare_predictions(first, second)
    assert shared_predictions(tmp_path / "x", tmp_path / "y") == ["knn/predictions/clean.csv"]
    second.unlink()
    with pytest.raises(MissingFolderError, match="no predictions of the same probe"):
        shared_predictions(tmp_path / "x", tmp_path / "y")
    with pytest.raises(MissingFolderError, match="does not exist"):
        shared_predictions(tmp_path / "x", tmp_path / "z")


def test_the_confusion_picture_fits_few_and_many_classes() -> None:
    for n in (2, 70):
        with Image.open(
            io.BytesIO(confusion_figure(np.eye(n, dtype=np.int64), [f"c{i}" for i in range(n)]))
        ) as picture:
            assert 900 <= picture.width <= 1800
            blues = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert (blues == [8, 48, 107]).all(axis=1).sum() > 5000  # the darkest: all of a class told right
    with pytest.raises(ValueError, match="for 3 classes"):
        confusion_figure(np.eye(2, dtype=np.int64), ["a", "b", "c"])
