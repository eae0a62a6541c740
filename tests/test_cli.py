"""The command line: exit statuses, messages, and the way from noisy folder to denoised folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from helpers import SmallSet, run_python

from dinov2_noise.launch import LaunchError, run, train_command


def _cli(*arguments: str) -> tuple[int, str, str]:
    done = run_python("-m", "dinov2_noise", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_known_errors_have_no_traceback(tmp_path: Path) -> None:
    status, _, errors = _cli("add-noise", str(tmp_path / "absent"), str(tmp_path / "out"), "--noise", "gauss50")
    assert status == 1
    assert "MissingFolderError" in errors
    assert "absent does not exist" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        ("KeyboardInterrupt", 130, "interrupted: start the same command again to continue"),
        ("OSError(28, 'No space left on device', '/full/x.png')", 1, "No space left on device: '/full/x.png'"),
    ],
)
def test_what_stops_a_command_is_one_line(raised: str, status: int, text: str) -> None:
    code = f"""
import sys
from dinov2_noise import cli
@cli.app.command("stopped")
def stopped() -> None:
    raise {raised}
sys.argv = ["dinov2-noise", "stopped"]
cli.main()
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert text in done.stderr


def test_unknown_noise_lists_the_valid_ones(small_set: SmallSet, tmp_path: Path) -> None:
    status, _, errors = _cli("add-noise", str(small_set.clean), str(tmp_path / "out"), "--noise", "gaus255")
    assert status == 1
    assert all(name in errors for name in ("gauss255", "shot10", "speckle0.4"))
    assert not (tmp_path / "out").exists()


def test_noise_and_index(small_set: SmallSet, tmp_path: Path) -> None:
    out = tmp_path / "noisy"
    status, output, errors = _cli("add-noise", str(small_set.clean), str(out), "--noise", "gauss100", "--workers", "1")
    assert (status, output.strip()) == (0, f"{out}: 30 images written"), errors
    name = "train/n3/n3_1.png"
    assert (out / name).read_bytes() == (small_set.noisy / name).read_bytes()
    assert _cli("index", str(out))[1].split("\n")[:2] == ["TRAIN: 20 images", "VAL: 10 images"]
    assert (tmp_path / "noisy-extra" / "entries-TRAIN.npy").exists()


def test_denoiser_from_noisy_folder_to_denoised_folder(small_set: SmallSet, tmp_path: Path) -> None:
    weights, out = tmp_path / "denoiser", tmp_path / "denoised"
    status, _, errors = _cli(
        *("denoise", "train", str(small_set.noisy), str(weights), "--steps", "2", "--crop", "64"),
        *("--n-feature", "8", "--residual", "--lr", "1e-3", "--batch-size", "2"),
    )
    assert status == 0, errors
    status, output, errors = _cli(
        "denoise", "apply", str(small_set.noisy), str(out), "--weights", str(weights / "denoiser.pth")
    )
    assert (status, output.strip()) == (0, f"{out}: 30 images written"), errors
    again = _cli("denoise", "apply", str(small_set.noisy), str(out), "--weights", str(weights / "denoiser.pth"))
    assert again[1].strip() == f"{out}: 0 images written"


def test_configs_are_listed() -> None:
    status, output, _ = _cli("configs", "--grep", "nct")
    assert status == 0
    assert re.search(r"^  nct +NCT: noise curriculum", output, flags=re.MULTILINE)
    assert re.search(r"^  in100-nct-gauss255 +ImageNet-100 with gauss255: NCT", output, flags=re.MULTILINE)


def test_train_command() -> None:
    command = train_command("nct", Path("out"), ["optim.epochs=1"], processes=2, resume=False)
    assert command[1:6] == ["-m", "dinov2_noise.launch", "--standalone", "--nproc-per-node", "2"]
    assert command[6:9] == ["-m", "dinov2.train.train", "--config-file"]
    assert command[9].endswith("dinov2_noise/configs/nct.yaml")
    assert command[10:] == ["--output-dir", "out", "--no-resume", "optim.epochs=1"]


def test_a_failed_process_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "job.txt"
    with pytest.raises(LaunchError, match=r"status 3; the last line of .*job\.txt is: out of luck"):
        run([sys.executable, "-c", "import sys; print('out of luck'); sys.exit(3)"], log=log)
