"""kill -9 in the middle of each long command, and the same command again: what comes out is as if nothing had been.

The command runs in a forked process and is killed, with all its workers, at a certain renaming of a file; one is a real
command in processes of its own, killed from outside.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import clean_environment
from PIL import Image

from dinov2_noise.cli import app
from dinov2_noise.data import build_index
from dinov2_noise.denoise import apply_denoiser, train_denoiser
from dinov2_noise.evaluation.corruption_cells import Cell
from dinov2_noise.evaluation.corruption_run import CellFolder
from dinov2_noise.evaluation.counting import Count
from dinov2_noise.files import list_images, read_manifest
from dinov2_noise.noise import add_noise
from dinov2_noise.noise.corruptions import Corruption, corrupt_folder
from dinov2_noise.recipes.ledger import StepRecord
from neighbor2neighbor import UNet, save_checkpoint

IMAGES = 12
ENDLESS_S = 300.0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What several threads have begun hangs in a forked process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed") / "clean"
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = root / "val" / f"n{number % 4}" / f"n{number % 4}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (72, 80, 3), dtype=np.uint8)).save(path)
    (root / "labels.txt").write_text("".join(f"n{label},name {label}\n" for label in range(4)))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too; of the log of speeds, which no two runs share, nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def killed_at(renaming: int, run: Callable[[], object]) -> bool:
    """Run in a forked process that is killed, workers and all, at a renaming of a file, counted from 1 over all of
    them; whether it came to that.
    """
    context = multiprocessing.get_context("fork")
    reading, writing = os.pipe()
    process = context.Process(target=_die_at, args=(renaming, context.Value("i"), run))
    process.start()
    os.close(writing)
    with os.fdopen(reading, "rb") as held_by_all:
        held_by_all.read()  # ends when the last of them has ended
    process.join(ENDLESS_S)
    assert process.exitcode in (0, -signal.SIGKILL)
    _wait_for_group(process.pid or 0)
    return process.exitcode != 0


def _wait_for_group(group: int) -> None:
    end = time.monotonic() + 5  # in some containers nobody asks for the workers, which stay known for ever
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.002)


def _die_at(renaming: int, renamings: Any, run: Callable[[], object]) -> None:
    replace = os.replace
    os.setpgid(0, 0)
    signal.alarm(int(ENDLESS_S))

    def dying(*arguments: Any, **options: Any) -> None:
        with renamings.get_lock():
            renamings.value += 1
            is_last = renamings.value == renaming
        if is_last:
            os.killpg(0, signal.SIGKILL)
        replace(*arguments, **options)

    os.replace = dying  # type: ignore[assignment]
    run()


def killings(run: Callable[[int], object]) -> Iterator[int]:
    """Call ``run`` with 1, 2, … in processes that are killed at that renaming, until one comes to its end."""
    number = 1
    while killed_at(number, partial(run, number)):
        yield number
        number += 1


def assert_all_whole(out: Path) -> int:
    """Every image under a final name can be decoded; their number."""
    names = list_images(out)
    for name in names:
        with Image.open(out / name) as image:
            image.load()
    return len(names)


def kill_while_it_reads(pipe: Path, *command: str) -> None:
    """Start the command, and kill all its processes once it waits for the content of ``pipe``."""
    with subprocess.Popen(
        [sys.executable, "-m", "dinov2_noise", *command],
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        end = time.monotonic() + ENDLESS_S
        while not _is_read(pipe) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        errors = process.communicate()[1]  # ends when the last of its processes has ended
    _wait_for_group(process.pid)
    assert process.returncode == -signal.SIGKILL, errors


def _is_read(pipe: Path) -> bool:
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_a_command_is_killed_from_outside(source: Path, tmp_path: Path) -> None:
    """The last image is a pipe, for which a worker waits."""
    out, last = tmp_path / "out", source / "val" / "n3" / "z.png"
    os.mkfifo(last)
    try:
        kill_while_it_reads(last, "add-noise", str(source), str(out), "--noise", "gauss100", "--workers", "2")
        last.unlink()
        done = assert_all_whole(out)
        assert IMAGES - 2 <= done <= IMAGES
        assert not read_manifest(out)["complete"]
        Image.effect_noise((72, 80), 50).convert("RGB").save(last)
        assert add_noise(source, out, noise="gauss100", workers=2, progress=False) == IMAGES + 1 - done
        add_noise(source, tmp_path / "whole", noise="gauss100", workers=1, progress=False)
        assert contents(out) == contents(tmp_path / "whole")
    finally:
        last.unlink()


def test_add_noise(source: Path, tmp_path: Path) -> None:
    run = partial(add_noise, source, noise="gauss100", progress=False)
    run(tmp_path / "whole", workers=1)
    for renaming in (1, 2, 3, 9):  # manifest, labels, the first image, a later one
        out = tmp_path / str(renaming)
        assert killed_at(renaming, partial(run, out, workers=2))
        done = assert_all_whole(out) if renaming > 3 else 0
        assert done < IMAGES
        assert run(out, workers=2) == IMAGES - done
        assert contents(out) == contents(tmp_path / "whole")


def test_corrupt(source: Path, tmp_path: Path) -> None:
    out, cells = tmp_path / "out", [Corruption("jpeg_compression", 2), Corruption("contrast", 2)]
    run = partial(corrupt_folder, source, corruptions=cells, size_px=64, progress=False)
    run(tmp_path / "whole", workers=1)
    assert killed_at(12, partial(run, out, workers=2))
    assert 0 < assert_all_whole(out) < 2 * IMAGES
    run(out, workers=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_denoise_apply(source: Path, tmp_path: Path) -> None:
    out, weights = tmp_path / "out", tmp_path / "weights.pth"
    save_checkpoint(weights, UNet(n_feature=4))
    run = partial(apply_denoiser, source, weights=weights, device="cpu", batch_size=2, progress=False)
    run(tmp_path / "whole")
    assert killed_at(7, partial(run, out))
    done = assert_all_whole(out)
    assert 0 < done < IMAGES
    assert run(out) == IMAGES - done
    assert contents(out) == contents(tmp_path / "whole")


def test_denoise_train(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes: dict[str, Any] = {"steps": 6, "batch_size": 2, "crop_px": 64, "n_feature": 4, "sample_every": 3}
    run = partial(train_denoiser, source, **sizes, device="cpu", progress=False)
    run(tmp_path / "whole")
    for renaming, step in ((6, 2), (12, 6)):  # a picture, and the weights
        out = tmp_path / str(renaming)
        assert killed_at(renaming, partial(run, out, num_workers=1))
        capsys.readouterr()
        run(out)
        assert f"continuing after step {step} of 6" in capsys.readouterr().err
        assert contents(out) == contents(tmp_path / "whole")


def test_index(source: Path, tmp_path: Path) -> None:
    build_index(source, tmp_path / "whole", progress=False)
    expected = contents(tmp_path / "whole")
    for number in killings(lambda number: build_index(source, tmp_path / str(number), progress=False)):
        out = tmp_path / str(number)
        for path in out.glob("[!.]*.npy"):
            assert path.read_bytes() == expected[path.name]
        build_index(source, out, progress=False)
        assert contents(out) == expected
    assert number >= 4


def test_check(source: Path, tmp_path: Path) -> None:
    def check(report: Path) -> None:
        app(["check", str(source), "--workers", "1", "--json", str(report)], standalone_mode=False)

    whole, report = tmp_path / "whole.json", tmp_path / "report.json"
    check(whole)
    assert killed_at(1, partial(check, report))
    assert not report.exists()
    check(report)
    assert json.loads(report.read_text()) == json.loads(whole.read_text())


def test_evaluate_corruptions(source: Path, tmp_path: Path) -> None:
    """Cells as they are kept; what measures one is given here, and would take minutes."""
    cells = [Cell(f"gauss{level}", f"ImageFolder:root={source}") for level in (50, 100, 255)]

    def measure(names: Sequence[str]) -> Iterator[tuple[int, Count]]:
        for position in range(len(names)):
            yield position, Count(10, {"knn": 3}, 0.0, 0.0)

    def evaluate(out: Path) -> None:
        folder = CellFolder(out, {"weights": "abc"}, cells)
        folder.open()
        folder.run(measure)

    evaluate(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    for number in killings(lambda number: evaluate(tmp_path / f"out{number}")):
        out = tmp_path / f"out{number}"
        assert len(list(out.glob("cells/[!.]*.json"))) < 3
        evaluate(out)
        assert contents(out) == expected
    assert number > 3


def test_the_record_of_a_recipes_step(tmp_path: Path) -> None:
    path = tmp_path / "steps" / "a.json"
    record = StepRecord("running", ["true"], {}, {}, [], "now", "1")
    record.save(path)
    assert killed_at(1, lambda: StepRecord("done", ["true"], {}, {}, [], "now", "1").save(path))
    assert StepRecord.load(path) == record
