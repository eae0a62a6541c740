"""The two sections that need a backbone: principal components of patch tokens, and neighbours of noisy queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.denoise.device import choose_device
from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.evaluation.runs import open_run
from dinov2_noise.report.arms import by_arm
from dinov2_noise.report.feature_figures import Neighbour, map_sheet, neighbour_sheet
from dinov2_noise.report.html import Block, FigureBlock, Missing, Section
from dinov2_noise.report.images import Choice, Images, open_images
from dinov2_noise.report.runs import Run
from dinov2_noise.report.tokens import colour_maps, nearest

MOST_RUNS = 4
_BATCH = 25
_EVALUATE = "dinov2-noise evaluate knn --help    # how often the neighbours are right, on all images"


@dataclass(frozen=True)
class Settings:
    """How much is computed.

    Attributes:
        choice: of images. n_maps: images with a map. n_queries, n_neighbours: of neighbours. n_candidates: images
            among which neighbours are looked for, evenly over the set. device: ``auto``, ``cpu``, ``cuda`` or
            ``cuda:N``.
    """

    choice: Choice = field(default_factory=Choice)
    n_maps: int = 6
    n_queries: int = 6
    n_neighbours: int = 5
    n_candidates: int = 500
    device: str = "auto"


def feature_sections(runs: Sequence[Run], settings: Settings, tell: Callable[[str], None]) -> list[Section]:
    """Both sections, of at most `MOST_RUNS` arms, the first run of each, the random network last; each is loaded once.

    ``tell``: is given a line on what is being done, as it takes time.
    """
    maps: list[Block] = []
    neighbours: list[Block] = []
    arms = by_arm([run for run in runs if any(run.folder.glob("eval/*"))])
    able = sorted((own[0] for own in arms.values()), key=lambda run: run.is_untrained)
    for run in able[:MOST_RUNS]:
        tell(f"features of {run.name}")
        try:
            both = _of_run(run, settings)
        except (DinoNoiseError, ImportError, OSError, ValueError) as cause:
            fault = Missing(f"{run.name}: {cause}", f"dinov2-noise report {run.folder} --images FOLDER")
            both = [fault], [fault]
        maps += both[0]
        neighbours += both[1]
    if not able:
        text = "No run has written a teacher yet (eval/training_…/teacher_checkpoint.pth)."
        maps.append(Missing(text, "dinov2-noise train CONFIG --output RUN"))
        neighbours.append(Missing(text, "dinov2-noise train CONFIG --output RUN"))
    elif len(able) > MOST_RUNS:
        rest = ", ".join(run.name for run in able[MOST_RUNS:])
        note = Missing(f"{MOST_RUNS} arms are shown; not shown: {rest}.", "dinov2-noise report RUN")
        maps.append(note)
        neighbours.append(note)
    return [
        Section("maps", "Maps of patch tokens", maps),
        Section("neighbours", "Neighbours of noisy images", neighbours),
    ]


def without_features() -> list[Section]:
    """What stands in their place with ``--no-pictures``."""
    note = Missing("Left out with --no-pictures.")
    return [
        Section("maps", "Maps of patch tokens", [note]),
        Section("neighbours", "Neighbours of noisy images", [note]),
    ]


def _of_run(run: Run, settings: Settings) -> tuple[list[Block], list[Block]]:
    images = open_images(run, settings.choice)
    extractor = Extractor.of(run, settings.device)
    return [_maps(run, images, extractor, settings)], [_neighbours(run, images, extractor, settings)]


class Extractor:
    """Tokens of images as upstream's evaluations make them: shorter side to 256 px, centre of 224 px.

    Args:
        model: called with normalised images (B, 3, 224, 224); gives tokens per block, the last block at the end.
        transform: from an RGB image to its input.
    """

    def __init__(self, model: Callable[[torch.Tensor], Any], transform: Callable[[Any], torch.Tensor]) -> None:
        self.model, self.transform = model, transform

    @classmethod
    def of(cls, run: Run, device: str) -> Extractor:
        """The teacher of a run.

        Raises:
            DinoNoiseError: there is none, or its weights cannot be read.
            ImportError: dinov2 is not installed.
        """
        from dinov2_noise.upstream.probing.model import FeatureModel, eval_transform, load_backbone_for_evaluation

        found = open_run(run.folder)
        backbone = load_backbone_for_evaluation(found.config_file, found.weights, choose_device(device))
        return cls(FeatureModel(backbone), eval_transform())

    def shown(self, image: Image.Image) -> Image.Image:
        """What of an image the model is given, as a picture."""
        side = 256 / min(image.size)
        large = image.resize((round(image.width * side), round(image.height * side)), Image.Resampling.BICUBIC)
        left, top = (large.width - 224) // 2, (large.height - 224) // 2
        return large.crop((left, top, left + 224, top + 224))

    def patch_tokens(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """(M, h, w, D) of M images."""
        found = np.concatenate([part[0] for part in self._tokens(images, "patch")])
        side = round(found.shape[1] ** 0.5)
        return found.reshape(len(found), side, side, -1)

    def class_tokens(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """(M, D) of M images."""
        return np.concatenate([part[0] for part in self._tokens(images, "class")])

    def _tokens(
        self, images: Iterable[Image.Image], kind: Literal["patch", "class"]
    ) -> list[tuple[NDArray[np.float32]]]:
        found, batch = [], []
        for image in [*images, None]:
            if image is not None:
                batch.append(self.transform(image))
            if batch and (image is None or len(batch) == _BATCH):
                patch, cls = self.model(torch.stack(batch))[-1]
                found.append(((patch if kind == "patch" else cls).float().cpu().numpy(),))
                batch = []
        return found


def _maps(run: Run, images: Images, extractor: Extractor, settings: Settings) -> Block:
    chosen = images.spread(settings.n_maps)
    originals = [images.original(index) for index in chosen]
    forms: dict[str, list[Image.Image]] = {images.form: [images.noisy(index) for index in chosen]}
    if all(originals):
        name = originals[0][0] if originals[0] else ""
        forms = {name: [pair[1] for pair in originals if pair is not None]} | forms
    tokens = extractor.patch_tokens(image for form in forms.values() for image in form)
    maps = colour_maps(tokens).reshape(len(forms), len(chosen), *tokens.shape[1:3], 3)
    rows = {}
    for number, (name, pictures) in enumerate(forms.items()):
        rows[name] = [extractor.shown(picture) for picture in pictures]
        rows[f"{name}:\ntokens"] = [Image.fromarray(part) for part in maps[number]]
    png = map_sheet([images.class_name(index) or images.name(index) for index in chosen], rows)
    caption = (
        f"The first three principal components of the teacher's patch tokens as red, green and blue, fitted on all "
        f"shown images together: a colour means the same in all of them, in {' and '.join(forms)} alike. "
        f"{_capital(images.label)}, {images.noise_label}. Between networks colours cannot be compared."
        f"{_meant_for(run, images)}"
    )
    if len(forms) == 1:
        caption += " Clean images are not known: name their folder with --clean."
    return FigureBlock(run.name, png, caption, f"Maps of patch tokens of {run.name}, {' and '.join(forms)} images.")


def _neighbours(run: Run, images: Images, extractor: Extractor, settings: Settings) -> Block:
    candidates = images.spread(settings.n_candidates)
    count = min(settings.n_neighbours, len(candidates) - 1)
    if count < 1:
        return Missing(f"{run.name}: one image has no neighbours.", "dinov2-noise report RUN --images FOLDER")
    chosen = sorted({int((place + 0.5) * len(candidates) / settings.n_queries) for place in range(settings.n_queries)})
    tokens = extractor.class_tokens(images.noisy(index) for index in candidates)
    found, cosines = nearest(tokens[chosen], tokens, count, own=np.array(chosen))
    rows = []
    for place, row, near in zip(chosen, found, cosines, strict=True):
        query = candidates[place]
        others = [_neighbour(images, query, candidates[other], float(c)) for other, c in zip(row, near, strict=True)]
        rows.append((Neighbour(images.noisy(query), images.class_name(query), None, None), others))
    png = neighbour_sheet(rows, extractor.shown)
    right = [other.is_right for _, others in rows for other in others if other.is_right is not None]
    marks = f" ✓ same class, ✗ another: {sum(right)} of {len(right)} are right." if right else " Classes are not known."
    caption = (
        f"Left the query, right its {count} nearest among {len(candidates):,} {images.label}, all "
        f"{images.form} ({images.noise_label}), by the cosine of the teacher's class tokens.{marks} A few queries "
        f"are no measurement.{_meant_for(run, images)}"
    )
    return FigureBlock(run.name, png, caption, f"Nearest neighbours of {images.form} queries by {run.name}.")


def _meant_for(run: Run, images: Images) -> str:
    """A remark where the network is shown images of a kind it was not trained on."""
    if images.form == "noisy" and run.stages and all(stage.view == "denoised" for stage in run.stages):
        return " This network has seen denoised images only: it is meant to stand behind the denoiser."
    return ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _neighbour(images: Images, query: int, other: int, cosine: float) -> Neighbour:
    targets = [images.dataset.get_target(index) for index in (query, other)]
    is_right = None if None in targets else targets[0] == targets[1]
    return Neighbour(images.noisy(other), images.class_name(other), cosine, is_right)
