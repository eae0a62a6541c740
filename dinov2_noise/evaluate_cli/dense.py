"""``evaluate dense``: how well patch tokens tell the class of every pixel, clean and noisy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinov2_noise.errors import ConfigError
from dinov2_noise.evaluate_cli.common import Device, LoaderWorkers, console

if TYPE_CHECKING:
    from dinov2_noise.evaluation.dense_masks import Labelled
    from dinov2_noise.evaluation.dense_results import ConditionResult, Evaluation
    from dinov2_noise.upstream.probing.dense import DenseRequest, Save

_CLEAN, _SAME = "clean", "same"


def dense(
    train_images: Annotated[Path, typer.Option(help="Folder of training images,")],
    train_masks: Annotated[Path, typer.Option(help="and of their masks: the same paths, PNG, TIFF or NPY.")],
    val_images: Annotated[Path, typer.Option(help="Folder of validation images,")],
    val_masks: Annotated[Path, typer.Option(help="and of their masks.")],
    output: Annotated[Path, typer.Option(help="Folder for the results; the same command continues there.")],
    run: Annotated[Path | None, typer.Option(help="Folder of a training run.")] = None,
    config_file: Annotated[Path | None, typer.Option(help="In place of --run: config.yaml of the run,")] = None,
    weights: Annotated[Path | None, typer.Option(help="and its eval/training_…/teacher_checkpoint.pth.")] = None,
    noise: Annotated[str, typer.Option(help="Of the validation images: clean, or noises, separated by commas.")] = (
        "clean,gauss100"
    ),
    train_noise: Annotated[str, typer.Option(help="Of the training images: same, clean, or one noise.")] = _SAME,
    classes: Annotated[Path | None, typer.Option(help="Text file of the classes' names, one per line, from 0.")] = None,
    ignore: Annotated[int, typer.Option(help="Mask value of pixels without class; -1: there is none.")] = 255,
    train_list: Annotated[
        Path | None, typer.Option(help="Text file of the training images to use, one a line.")
    ] = None,
    val_list: Annotated[Path | None, typer.Option(help="The same for validation.")] = None,
    size: Annotated[int, typer.Option(help="Images' shorter side, in px; rounded to multiples of a patch.")] = 448,
    blocks: Annotated[int, typer.Option(help="Patch tokens of so many last blocks, side by side.")] = 1,
    l2: Annotated[str, typer.Option(help="Penalty on the weights; auto: chosen on held-out training images.")] = "auto",
    max_patches: Annotated[int, typer.Option(help="Training patches at most, drawn evenly over the images.")] = 200_000,
    save_predictions: Annotated[
        bool, typer.Option("--save-predictions", help="Write the predicted masks of the validation images.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Base seed of the noise, and of the draw of patches.")] = 42,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 16,
    workers: LoaderWorkers = 4,
    device: Device = "auto",
    name: Annotated[str, typer.Option(help="Of the model, in tables; by default the run's folder.")] = "",
) -> None:
    """Mean intersection over union of a linear classifier on patch tokens, for any images with masks."""
    from dinov2_noise.evaluate_cli.model import open_model
    from dinov2_noise.evaluation.dense_masks import find_labelled
    from dinov2_noise.upstream.probing.dense import DenseRequest

    model = open_model(run, config_file, weights)
    noises = _Noises.parse(noise, train_noise)
    train, val = find_labelled(train_images, train_masks, train_list), find_labelled(val_images, val_masks, val_list)
    void = None if ignore < 0 else ignore
    names, majority = _classes(train, val, classes, void, workers)
    request = DenseRequest(
        config_file=model.config_file,
        weights=model.weights,
        train=train,
        val=val,
        n_classes=len(names),
        ignore=void,
        size_px=size,
        blocks=blocks,
        l2=_penalty(l2),
        max_patches=max_patches,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    evaluation = _evaluation(name or model.name, val_images, names, majority, request)
    _run(request, evaluation, noises, output, save_predictions)


def _penalty(text: str) -> float | None:
    try:
        return None if text == "auto" else float(text)
    except ValueError as cause:
        raise ConfigError(f"--l2 {text!r}: auto, or a number above 0") from cause


@dataclass(frozen=True)
class _Noises:
    """Of the validation images, one after the other, and of the training images: ``same``, or one for all."""

    val: Sequence[str]
    train: str

    @classmethod
    def parse(cls, val: str, train: str) -> _Noises:
        names = list(dict.fromkeys(_canonical(name) for name in val.split(",") if name))
        if not names:
            raise ConfigError("--noise is empty: give clean, or noises such as clean,gauss100")
        return cls(names, train if train == _SAME else _canonical(train))

    def train_of(self, name: str) -> str:
        return name if self.train == _SAME else self.train


def _canonical(name: str) -> str:
    from dinov2_noise.noise import parse

    return name if name == _CLEAN else parse(name).name


def _classes(
    train: Sequence[Labelled], val: Sequence[Labelled], names: Path | None, ignore: int | None, threads: int
) -> tuple[list[str], tuple[float, float]]:
    """Names of the classes, and what saying the most common one everywhere scores."""
    import numpy as np

    from dinov2_noise.evaluation.dense_masks import class_names, survey
    from dinov2_noise.evaluation.dense_scores import always

    in_train = survey(train, ignore, threads=threads, description="training masks")
    in_val = survey(val, ignore, threads=threads, description="validation masks")
    found = class_names(names, in_train, in_val, ignore)
    truth = np.pad(in_val.pixels, (0, len(found) - len(in_val.pixels)))
    return found, always(int(in_train.pixels.argmax()), truth)


def _evaluation(
    arm: str, val_images: Path, names: Sequence[str], majority: tuple[float, float], request: DenseRequest
) -> Evaluation:
    from dinov2_noise.evaluate_cli.model import training_seed
    from dinov2_noise.evaluation.dense_results import Evaluation

    return Evaluation(
        arm=arm,
        dataset=val_images.resolve().name,
        classes=names,
        seed=training_seed(request.config_file),
        majority=majority,
        details={
            "config": str(request.config_file),
            "weights": str(request.weights),
            "images": str(val_images),
            "model": request.identity(),
        },
    )


def _run(request: DenseRequest, evaluation: Evaluation, noises: _Noises, output: Path, save_predictions: bool) -> None:
    from dinov2_noise.evaluation.dense_results import ConditionResult, set_identity
    from dinov2_noise.files import OutputFolder
    from dinov2_noise.upstream.probing.dense import DenseProbe

    identity: dict[str, Any] = {**request.identity(), "train": set_identity(request.train)}
    identity |= {"val": set_identity(request.val), "train_noise": noises.train, "predictions": save_predictions}
    folder = OutputFolder(output, "evaluate dense", {**identity, "arm": evaluation.arm, "set": evaluation.dataset})
    folder.check()
    pending = [name for name in noises.val if not evaluation.file(output, name).is_file()]
    if pending:
        probe = DenseProbe(request)
        folder.open()  # not before: files that do not fit would leave a folder that refuses those that do
        for name in pending:
            save = _saver(request, output / "predictions" / name) if save_predictions else None
            evaluation.save(probe.measure(_noise(name), _noise(noises.train_of(name)), save), output)
    results = [ConditionResult.load(evaluation.file(output, name)) for name in noises.val]
    folder.close(noises=list(noises.val))
    _show(evaluation, results, output)


def _noise(name: str) -> str | None:
    return None if name == _CLEAN else name


def _saver(request: DenseRequest, folder: Path) -> Save:
    from dinov2_noise.evaluation.dense_results import save_classes

    def save(index: int, classes: Any) -> None:
        save_classes(classes, (folder / request.val[index].relative_path).with_suffix(".png"))

    return save


def _show(evaluation: Evaluation, results: Sequence[ConditionResult], output: Path) -> None:
    console.print(evaluation.table(results))
    console.print(evaluation.class_table(results))
    for result in results:
        if not result.classifiers["tokens"]["has_converged"]:
            console.print(f"{result.noise}: the classifier's fit stopped before its minimum", soft_wrap=True)
    console.print(f"{output}: results/, records/", soft_wrap=True)
