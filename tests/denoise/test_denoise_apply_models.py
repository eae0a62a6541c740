"""``denoise apply --model``: any module, its identity, and what is wrong with it, told before anything is written."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SmallSet, clean_environment, run_python
from PIL import Image
from torch import nn

from dinov2_noise.data import build_index, make
from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.denoise.models import load_denoiser, parse_options
from dinov2_noise.errors import ConfigError, DinoNoiseError, ImageError, OutputFolderError
from dinov2_noise.files import list_images, read_manifest

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
HERE = Path(__file__).parent
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def in_this_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("factories", None)


def mean_of(image: np.ndarray, side: int) -> np.ndarray:
    """Windows of side x side pixels, the border repeated; rounded."""
    reach = side // 2
    padded = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return np.floor(windows.mean(axis=(-2, -1)) + 0.5)


def test_from_command_line_to_pairs_and_through_a_kill(small_set: SmallSet, tmp_path: Path) -> None:
    """A 3x3 mean takes the place of the denoiser; the process is killed (-9) on the way and started again."""
    out, kill_at = tmp_path / "denoised", tmp_path / "kill_at"
    kill_at.write_text("12")
    command = ["-m", "dinov2_noise", "denoise", "apply", str(small_set.noisy), str(out), "--device", "cpu"]
    options = ["--model", "factories:mean", "--model-option", "side=3", "--model-option", f"kill_at={kill_at}"]
    killed = run_python(*command, *options, cwd=HERE)
    assert killed.returncode == -9, killed.stderr
    done = list_images(out)
    assert 0 < len(done) < 30
    assert not read_manifest(out)["complete"]
    for name in done:
        Image.open(out / name).load()  # whole
    written = apply_denoiser(
        small_set.noisy,
        out,
        model_factory="factories:mean",
        model_options={"side": 3, "kill_at": str(kill_at)},
        **QUIET,
    )
    assert written == 30 - len(done)
    manifest = read_manifest(out)
    assert manifest["complete"]
    assert manifest["parameters"]["model"] == "factories:mean"
    assert manifest["parameters"]["model_options"]["side"] == 3
    for name in list_images(small_set.noisy):
        noisy = np.asarray(Image.open(small_set.noisy / name))
        found = np.asarray(Image.open(out / name)).astype(int)
        # The reflected padding, not the image's border, is what lies beyond the edge.
        assert np.array_equal(found[1:-1, 1:-1], mean_of(noisy, 3)[1:-1, 1:-1]), name
    build_index(out, progress=False)
    pairs = make(f"ImageNet:split=TRAIN:root={small_set.noisy}:denoised={out}")
    assert len(pairs) == 20
    noisy = np.asarray(pairs.noisy(7))  # type: ignore[attr-defined]
    twin = np.asarray(pairs.denoised(7))  # type: ignore[attr-defined]
    assert np.array_equal(twin[1:-1, 1:-1], mean_of(noisy, 3)[1:-1, 1:-1])


def test_what_is_wrong_with_a_factory_is_said_before_anything_is_written(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    (tmp_path / "half.py").write_text("import not_there\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "script.py").write_text("raise SystemExit\n")
    sys.path.append(str(tmp_path))
    wrong = {
        "factories": r"'factories' is not module:factory, such as",
        "nowhere:mean": rf"there is no module nowhere, neither in {HERE} nor installed",
        "factories.deeper:mean": r"there is no module factories\.deeper",
        "half:mean": r"half needs not_there, which is not installed",
        "syntax:mean": r"importing syntax failed: SyntaxError",
        "script:mean": r"importing script failed: SystemExit",
        "factories:median": r"factories has no function median; it has Mean, mean, Function, function, of_side, ",
        "factories:FUNCTIONS": r"has no function FUNCTIONS",
        "factories:missing_file": r"factories:missing_file\(\) could not be made: FileNotFoundError: no such file: dru",
        "factories:function": r"could not be made: TypeError: .*missing 1 required positional argument: 'name'",
        "factories:no_module": r"returned a builtin_function_or_method, not a torch\.nn\.Module",
    }
    for spec, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            apply_denoiser(noisy, tmp_path / "out", model_factory=spec, **QUIET)
    with pytest.raises(ConfigError, match=r"factories:mean\(size=3\) could not be made: TypeError"):
        apply_denoiser(noisy, tmp_path / "out", model_factory="factories:mean", model_options={"size": 3}, **QUIET)
    for side in (0, "wide"):
        options = {"multiple_px": side}
        with pytest.raises(ConfigError, match=rf"side_multiple_px of a Function must be .* got {side!r}"):
            apply_denoiser(noisy, tmp_path / "out", model_factory="factories:of_side", model_options=options, **QUIET)
    for arguments in ({}, {"model_factory": "factories:mean", "weights": tmp_path / "w.pth"}):
        with pytest.raises(ConfigError, match="either weights or a model"):
            apply_denoiser(noisy, tmp_path / "out", **arguments, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="options side belong to a factory"):
        apply_denoiser(noisy, tmp_path / "out", weights=tmp_path / "w.pth", model_options={"side": 3}, **QUIET)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("levels", r"returned values from 0 to 255 for .*a\.png, .* if it works on 0 to 255"),
        ("signed", r"returned values from -1 to 1 for .*must map \[0, 1\] to \[0, 1\]"),
        (
            "smaller",
            r"cannot denoise .*a\.png: the denoiser returned shape \(1, 3, 32, 32\) for input \(1, 3, 64, 64\)",
        ),
        ("gray", r"the denoiser returned shape \(1, 1, 64, 64\)"),
        ("broken", r"cannot denoise .*a\.png: the denoiser returned values that are not finite"),
        ("failing", r"cannot denoise .*a\.png: RuntimeError: .* padded to \(64, 64\), as a tensor"),
    ],
)
def test_a_wrong_output_is_noticed_on_a_crop_before_anything_is_written(
    make_images: Make, tmp_path: Path, name: str, message: str
) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (70, 100)})
    (noisy / "0.png").write_bytes(b"unreadable: the next one is looked at")
    with pytest.raises(DinoNoiseError, match=rf"denoiser factories:function\(name='{name}'\) .*{message}"):
        apply_denoiser(
            noisy, tmp_path / "out", model_factory="factories:function", model_options={"name": name}, **QUIET
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken where wide", "b.png: the denoiser returned values that are"), ("failing where wide", "b.png: RuntimeE")],
)
def test_what_goes_wrong_later_names_the_image(make_images: Make, tmp_path: Path, name: str, message: str) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64), "b.png": (64, 80), "c.png": (64, 64)})
    options = {"name": name}
    with pytest.raises(DinoNoiseError, match=message):
        apply_denoiser(noisy, tmp_path / "out", model_factory="factories:function", model_options=options, **QUIET)
    assert not read_manifest(tmp_path / "out")["complete"]


@pytest.mark.parametrize("name", ["broken where wide", "failing where wide"])
def test_what_goes_wrong_while_noise_is_fitted_is_one_error(make_images: Make, tmp_path: Path, name: str) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (80, 80)})
    (noisy / "0.png").write_bytes(b"unreadable")
    arguments: dict[str, Any] = {"model_factory": "factories:function", "model_options": {"name": name}, **QUIET}
    with pytest.raises(ImageError, match=r"0\.png"):
        apply_denoiser(noisy, tmp_path / "out", debias="auto", **arguments)
    with pytest.raises(DinoNoiseError, match="cannot denoise an image of which the noise is fitted: "):
        apply_denoiser(noisy, tmp_path / "out", debias="auto", skip_unreadable=True, **arguments)
    assert not (tmp_path / "out").exists()


def test_a_denoiser_that_works_in_place_may_be_tiled(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (300, 260)})
    arguments: dict[str, Any] = {"model_factory": "factories:function", **QUIET}
    arguments["model_options"] = {"name": "halved in place"}
    apply_denoiser(noisy, tmp_path / "out", max_pixels=192**2, **arguments)
    halved = np.floor(np.asarray(Image.open(noisy / "a.png")) / 2 + 0.5)
    assert np.abs(np.asarray(Image.open(tmp_path / "out" / "a.png")) - halved).max() <= 1  # a half may round down
    assert "the second time" not in capsys.readouterr().err


def test_other_weights_and_other_options_are_refused(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    factory = {"model_factory": "factories:mean", **QUIET}
    apply_denoiser(noisy, tmp_path / "out", model_options={"side": 3}, **factory)
    with pytest.raises(OutputFolderError, match=r"model_options: there .*3.* now .*5.*\n  model_sha256"):
        apply_denoiser(noisy, tmp_path / "out", model_options={"side": 5}, **factory)
    convolution = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3)[..., None, None])
    apply_denoiser(noisy, tmp_path / "module", model=convolution, **QUIET)
    assert apply_denoiser(noisy, tmp_path / "module", model=convolution, **QUIET) == 0
    with torch.no_grad():
        convolution.weight.mul_(0.5)
    with pytest.raises(OutputFolderError, match=r"results:\n  model_sha256: there '\w{64}', now '\w{64}'\nChoose"):
        apply_denoiser(noisy, tmp_path / "module", model=convolution, **QUIET)


def test_buffers_and_types_count_for_the_hash() -> None:
    def digest(module: nn.Module) -> Any:
        return load_denoiser(None, module, None).identity["model_sha256"]

    norm = nn.BatchNorm2d(3)
    before = digest(norm)
    assert before == digest(nn.BatchNorm2d(3))
    norm.running_mean += 1  # type: ignore[operator]
    assert digest(norm) != before
    assert digest(nn.BatchNorm2d(3).bfloat16()) != before
    assert "model_sha256" not in load_denoiser(None, nn.Identity(), None).identity


def test_a_module_is_put_in_eval_mode(make_images: Make, tmp_path: Path) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    apply_denoiser(noisy, tmp_path / "out", model=nn.Dropout(0.5), **QUIET)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), np.asarray(Image.open(noisy / "a.png")))


def test_a_denoiser_that_does_not_repeat_itself_is_noticed(
    make_images: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = make_images(tmp_path / "noisy", {"a.png": (64, 64)})
    for name, times in (("broken where wide", 0), ("random", 1)):
        apply_denoiser(
            noisy, tmp_path / name, model_factory="factories:function", model_options={"name": name}, **QUIET
        )
        assert capsys.readouterr().err.count("something else of the same image the second time") == times


def test_options_are_yaml() -> None:
    texts = ["sigma=0.1", "lr=1e-3", "path=w/a.pth", "sizes=[1, 2]", "none=null", "on=true", "name=a=b"]
    expected = {"sigma": 0.1, "lr": 1e-3, "path": "w/a.pth", "sizes": [1, 2], "none": None, "on": True, "name": "a=b"}
    assert parse_options(texts) == expected
    for text in ("sigma", "=3", "a.b=1"):
        with pytest.raises(ConfigError, match=f"model option '{text}' is not key=value"):
            parse_options([text])
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        parse_options(["sizes=[1, 2"])


def test_two_processes_share_the_work_and_wait_for_each_other(make_images: Make, tmp_path: Path) -> None:
    """An image that cannot be read stops neither of them before all others are done."""
    noisy = make_images(tmp_path / "noisy", {f"{number}.png": (40, 40) for number in range(6)})
    (noisy / "0.png").write_bytes(b"not an image")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = ["-m", "dinov2_noise", "denoise", "apply", str(noisy), str(tmp_path / "out"), "--device", "cpu"]
    options = ["--model", "factories:mean", "--skip-unreadable"]
    processes = [
        subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=HERE,
            env=clean_environment() | meeting | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [f"{tmp_path / 'out'}: 5 images written\n", ""]
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["complete"], manifest["images"]) == (True, 5)
    assert [Path(path).name for path in manifest["skipped"]] == ["0.png"]
    apply_denoiser(noisy, tmp_path / "alone", model_factory="factories:mean", skip_unreadable=True, **QUIET)
    for name in list_images(tmp_path / "alone"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
