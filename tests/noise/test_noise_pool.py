"""The processes that write folders: their end with their parent's, and what they say of a disk that takes no more."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dinov2_noise.errors import ConfigError, DinoNoiseError, ImageError
from dinov2_noise.noise.folder import save_png
from dinov2_noise.noise.pool import check_failures

# Each worker holds the pipe of standard output open for as long as it lives.
SLOW_JOB = """
import os, time
from dinov2_noise.noise.pool import run_jobs

def job(name):
    os.write(1, f"{name}\\n".encode())  # in one piece, unlike print, so that the lines of two processes do not mix
    time.sleep(600)

run_jobs(job, ["first", "second"], workers=2, description=None)
"""


def test_workers_end_when_their_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", SLOW_JOB], stdout=subprocess.PIPE, text=True) as parent:
        try:
            # Few images are spread over all workers: both have begun.
            assert {parent.stdout.readline().strip(), parent.stdout.readline().strip()} == {"first", "second"}
        finally:
            os.kill(parent.pid, signal.SIGKILL)
        closed, _, _ = select.select([parent.stdout], [], [], 60)
        assert closed
        assert parent.stdout.read() == ""


def test_a_few_bad_images_are_left_out_named_and_listed(capsys: pytest.CaptureFixture[str]):
    bad = [ImageError(f"{name}.png", "truncated") for name in ("b", "a", "b")]
    assert check_failures([], total=5) == []
    assert check_failures(bad, total=5, skip_bad=2) == ["a.png", "b.png"]
    assert capsys.readouterr().err == ("warning: left out 2 of 5 images:\n  a.png: truncated\n  b.png: truncated\n")
    for skip_bad, said in ((0, "(2 of 5 images failed)"), (1, "(2 of 5 images failed, and --skip-bad allows 1)")):
        with pytest.raises(ImageError) as caught:
            check_failures(bad, total=5, skip_bad=skip_bad)
        assert str(caught.value).splitlines() == [
            f"cannot use image b.png: truncated {said}",
            "  a.png: truncated",
            "Repair or remove them and run the same command again: finished images are kept. Or leave them out with "
            "--skip-bad 2.",
        ]
    with pytest.raises(ImageError, match="2 of 2 images failed") as all_bad:
        check_failures(bad, total=2, skip_bad=9)
    assert "leave them out" not in str(all_bad.value)
    with pytest.raises(ConfigError, match="skip-bad must be 0 or more images, not -1"):
        check_failures([], total=5, skip_bad=-1)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DinoNoiseError, match=r"cannot write .*file/a\.png: .*run the same command again"):
        save_png(np.zeros((2, 2, 3), np.uint8), tmp_path / "file/a.png")
