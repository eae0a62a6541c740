"""A tiny retrieval set of real photographs in the layout of the official ones.

Of each photograph inside scikit-image: one query with a box, two views of other framing (easy), two that are mirrored,
enlarged and of other exposure (hard), one small corner (junk).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from skimage import data

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "hubble_deep_field")
VIEWS = ("easy0", "easy1", "hard0", "hard1", "junk0")
WIDTH, HEIGHT = 160, 120


@dataclass(frozen=True)
class RetrievalSet:
    """``root/gnd_roxford5k.pkl`` and ``root/jpg/<name>.jpg``."""

    root: Path
    truth: dict[str, Any]

    @property
    def file(self) -> Path:
        return self.root / "gnd_roxford5k.pkl"


def write_retrieval_set(
    root: Path, photographs: Mapping[str, Image.Image] | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> RetrievalSet:
    """Write the set; by default 6 queries, 30 images in the database.

    Args:
        root: a new folder.
        photographs: name → image; None: those inside scikit-image.
        size: (width, height) of the images.
    """
    if photographs is None:
        photographs = {name: Image.fromarray(getattr(data, name)()).convert("RGB") for name in PHOTOGRAPHS}
    (root / "jpg").mkdir(parents=True)
    database, queries, gnd = [], [], []
    scale = size[0] / WIDTH
    for photograph, image in photographs.items():
        place = len(database)
        for view in VIEWS:
            database.append(f"{photograph}_{view}")
            _view(image, view, size).save(root / "jpg" / f"{database[-1]}.jpg", quality=92)
        queries.append(f"{photograph}_query")
        image.resize(size, Image.Resampling.BICUBIC).save(root / "jpg" / f"{queries[-1]}.jpg", quality=92)
        box = [scale * side for side in (20.4, 10.0, 140.0, 110.6)]
        one = {"bbx": box, "easy": [place, place + 1], "hard": np.array([place + 2, place + 3])}
        gnd.append({**one, "junk": [place + 4]})
    truth = {"imlist": database, "qimlist": queries, "gnd": gnd}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, protocol=2))
    return RetrievalSet(root, truth)


def _view(image: Image.Image, view: str, size: tuple[int, int]) -> Image.Image:
    width, height = image.size
    boxes = {
        "easy0": (0.06, 0.0, 1.0, 0.92),
        "easy1": (0.0, 0.08, 0.94, 1.0),
        "hard0": (0.2, 0.2, 0.85, 0.85),
        "hard1": (0.1, 0.15, 0.75, 0.9),
        "junk0": (0.8, 0.8, 1.0, 1.0),
    }
    sides = (side * length for side, length in zip(boxes[view], (width, height) * 2, strict=True))
    found = image.crop(tuple(round(side) for side in sides)).resize(size, Image.Resampling.BICUBIC)
    if view == "hard0":
        return ImageOps.mirror(ImageEnhance.Brightness(found).enhance(0.6))
    return ImageEnhance.Color(found).enhance(0.3) if view == "hard1" else found
