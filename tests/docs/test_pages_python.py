"""The Python blocks of the pages run: each in a folder, and with the names, that its page presumes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_python
from instrument_files import write_fits
from pages.blocks import Block, blocks, pages
from pages.material import Material, copy, copy_run, star_frames
from pages.play import play
from pages.scenarios import SCENARIOS
from pages.scenarios_new import reported
from pages.scenarios_training import linear_heads
from PIL import Image
from texture_set import write_texture_set

from dinov2_noise.data import DATASETS

Names = dict[str, Any]
Check = Callable[[Names], None]


def _blocks() -> list[tuple[str, Block]]:
    """``noise-2`` for the second Python block of docs/noise.md."""
    return [
        (f"{page.stem}-{number}", block)
        for page in pages()
        for number, block in enumerate((b for b in blocks(page) if b.language == "python"), start=1)
    ]


def _mosaic(folder: Path, _material: Material) -> Names:
    (folder / "mosaics").mkdir()
    write_fits(folder / "mosaics" / "field.fits", np.ones((600, 300), np.float32))
    return {}


def _frames(folder: Path, material: Material) -> Names:
    star_frames(folder / "frames", count=3)
    copy_run(material, folder / "run", "training_399")
    return {}


def _curriculum(_folder: Path, _material: Material) -> Names:
    from dinov2_noise.upstream.estimate import load

    return {"cfg": load("nct")}


def _photo(folder: Path, _material: Material) -> Names:
    Image.new("RGB", (64, 48), (200, 90, 30)).save(folder / "photo.jpg")
    return {"tensor": torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))}


def _bad_batch(folder: Path, _material: Material) -> Names:
    (folder / "run" / "bad_batch").mkdir(parents=True)
    content = {"losses": {"ibot_loss": float("nan")}, "image_paths": ["a.png"]}
    torch.save(content, folder / "run" / "bad_batch" / "iteration_1_rank_0.pt")
    return {}


def _photos(folder: Path, material: Material) -> Names:
    copy(material.clean / "val" / "coffee", folder / "photos" / "a")
    next((folder / "photos" / "a").iterdir()).rename(folder / "photos" / "a" / "1.png")
    return {}


def _probe(folder: Path, material: Material) -> Names:
    copy(material.clean, folder / "R", indexed=True)
    copy_run(material, folder / "run")
    (folder / "teacher_checkpoint.pth").symlink_to("run/eval/training_3/teacher_checkpoint.pth")
    done = run_python(*linear_heads("run", "R").split()[1:], cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return {"images": torch.zeros(2, 3, 224, 224)}


def _trusted(folder: Path, _material: Material) -> Names:
    torch.save({"model": {"weight": torch.ones(2)}, "made_by": Path("x")}, folder / "trusted.pth")
    return {"torch": torch}


def _checkpoint(folder: Path, material: Material) -> Names:
    from dinov2_noise.upstream.backbone import build_backbone

    (folder / "OUT").mkdir()
    checkpoint = next(material.run.glob("model_0*.pth"))
    (folder / "OUT" / "model_0001999.pth").symlink_to(checkpoint)
    return {"model": build_backbone(str(material.run / "config.yaml"))}


def _tokens(_folder: Path, _material: Material) -> Names:
    return {"tokens": torch.randn(32, 8, generator=torch.Generator().manual_seed(0))}


def _nothing(_folder: Path, _material: Material) -> Names:
    return {}


def _tiles_are_written(_names: Names) -> None:
    assert sorted(path.name for path in Path("frames/field").iterdir()) == ["00000_00000.fits", "00256_00000.fits"]


def _features_are_unit(_names: Names) -> None:
    features = np.load("features.npy")
    assert features.shape == (3, 192)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def _parts_add_up(names: Names) -> None:
    assert torch.allclose(names["low"] + names["high"], names["tensor"], atol=1e-5)
    assert Path("low.png").is_file()
    assert Path("patch.png").is_file()


def _noise_differs_by_epoch(names: Names) -> None:
    assert names["noisy"].shape == names["image"].shape
    assert (names["noisy"] != names["fresh"]).mean() > 0.5


def _weights_are_read(names: Names) -> None:
    assert names["report"].count("loaded") > 100
    assert names["weights"].rest["dino_loss.center"].shape[-1] == 32


def _classes_are_told(names: Names) -> None:
    assert names["classes"].shape[0] == 2


def _stars_are_known(_names: Names) -> None:
    del DATASETS["Stars"]


def _unit_features(_folder: Path, _material: Material) -> Names:
    features = np.eye(3, 4, dtype=np.float32)
    return {"queries": features[:1], "database": features}


def _masks(folder: Path, material: Material) -> Names:
    write_texture_set(folder / "set", n_train=4, n_val=2)
    copy_run(material, folder / "run")
    (folder / "teacher_checkpoint.pth").symlink_to("run/eval/training_3/teacher_checkpoint.pth")
    return {}


def _reported(folder: Path, material: Material) -> Names:
    reported(folder, material)
    return {}


def _a_run_is_found(names: Names) -> None:
    assert (len(names["found"].runs), len(names["found"].records)) == (1, 2)


def _log(folder: Path, _material: Material) -> Names:
    values = {"rank_me/noisy": 9.5, "knn_top1/clean": 0.5}
    entry = {"iteration": 3, "stage": "noisy", "seconds": 1.5, "values": values, "n_images": {"train": 48, "val": 24}}
    (folder / "run").mkdir()
    (folder / "run" / "monitor.jsonl").write_text(json.dumps(entry) + "\n")
    return {}


def _used(_folder: Path, material: Material) -> Names:
    """The folder that the commands of docs/using.md leave, made once."""
    folder = material.folder / "using"
    if not folder.exists():
        folder.mkdir()
        scenario = next(one for one in SCENARIOS if one.page == "docs/using.md")
        play(scenario, folder, material, folder / "no-warm-command", dear=True, timeout_s=3600)
    os.chdir(folder)
    return {}


def _tokens_are_told(names: Names) -> None:
    assert tuple(names["cls"].shape) == (1, 192)
    assert tuple(names["patches"].shape) == (1, 196, 192)


def _miou_is_a_share(names: Names) -> None:
    assert 0 <= names["result"].scores["tokens"].miou <= 1


def _first_is_found_first(names: Names) -> None:
    assert [list(order) for order in names["orders"]] == [[0, 1, 2]]


def _passes(_names: Names) -> None:
    pass


# Block → what its page presumes, and what must hold afterwards.
QUICK: dict[str, tuple[Callable[[Path, Material], Names], Check]] = {
    "astronomy-1": (_mosaic, _tiles_are_written),
    "clipped-noise-1": (lambda _folder, _material: {"denoised": torch.full((3, 4, 4), 0.5)}, _passes),
    "curriculum-1": (_curriculum, _passes),
    "data-1": (lambda _folder, _material: {"make_stars": lambda *_: None}, _stars_are_known),
    "frequency-filters-1": (_photo, _parts_add_up),
    "health-1": (_bad_batch, _passes),
    "health-2": (_tokens, _passes),
    "monitoring-1": (_log, _passes),
    "noise-1": (_nothing, _passes),
    "noise-2": (_photos, _noise_differs_by_epoch),
    "other-denoisers-1": (_nothing, _passes),
    "retrieval-1": (_unit_features, _first_is_found_first),
    "weights-1": (_trusted, _passes),
}
DEAR: dict[str, tuple[Callable[[Path, Material], Names], Check]] = {
    "astronomy-2": (_frames, _features_are_unit),
    "dense-1": (_masks, _miou_is_a_share),
    **{f"using-{number}": (_used, _tokens_are_told) for number in (2, 5, 6, 7, 8)},
    **{f"using-{number}": (_used, _passes) for number in (1, 3, 4)},
    "report-1": (_reported, _a_run_is_found),
    "robustness-1": (_probe, _classes_are_told),
    "weights-2": (_checkpoint, _weights_are_read),
}


def _run(name: str, folder: Path, material: Material, patch: pytest.MonkeyPatch) -> None:
    prepare, check = {**QUICK, **DEAR}[name]
    patch.chdir(folder)
    names = prepare(folder, material)
    block = dict(_blocks())[name]
    exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)
    check(names)


def test_every_block_is_run_or_says_what_it_needs() -> None:
    unmarked = {name for name, block in _blocks() if not block.needs}
    assert unmarked - {*QUICK, *DEAR} == set()


@pytest.mark.upstream
@pytest.mark.parametrize("name", QUICK)
def test_block(name: str, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(name, tmp_path, material, monkeypatch)


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers by default, on two cores
@pytest.mark.parametrize("name", DEAR)
def test_long_block(name: str, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(name, tmp_path, material, monkeypatch)
