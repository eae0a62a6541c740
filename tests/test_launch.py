"""Starting upstream's processes: how they are ended with us, and what is said of one that failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import clean_environment, run_python

from dinov2_noise.launch import LaunchError, run

LEAVE = "import json, os, sys; json.dump({}, open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w')); sys.exit(1)"

# SIGINT as in a terminal: background jobs of a shell inherit it ignored.
PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from dinov2_noise.launch import run
run([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""

# Counts the signals it gets for a second after the first, as torchrun takes its time to end its workers.
CHILD = """
import pathlib, signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: got.append(signal.Signals(number).name))
out = pathlib.Path(sys.argv[1])
out.write_text("ready")
while not got:
    time.sleep(0.02)
time.sleep(1)
out.write_text(" ".join(got))
"""


@pytest.mark.parametrize(
    "left", [{"message": "ConfigError: no"}, {"message": {"message": "ConfigError: no", "extraInfo": {"a": "b"}}}]
)
def test_an_error_left_in_either_form_is_the_message(left: object, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVE.format(json.dumps(left))]
    with pytest.raises(LaunchError) as caught:
        run(command)
    assert str(caught.value) == "ConfigError: no"
    log = tmp_path / "log.txt"
    with pytest.raises(LaunchError) as caught:
        run(command, log=log)
    assert str(caught.value) == f"ConfigError: no; see {log}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_child_once_and_its_end_is_awaited(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "child"
    command = [sys.executable, "-c", PARENT, CHILD, str(out)]
    # A session of its own has no terminal, from which the child would have got Ctrl-C already.
    with subprocess.Popen(
        command, env=clean_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end = time.monotonic() + 30
        while not (out.exists() and out.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        time.sleep(0.3)
        process.send_signal(number)
        try:
            errors = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert out.read_text() == number.name
    if number == signal.SIGTERM:
        assert process.returncode == 143
    else:
        assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"


def test_our_own_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run([sys.executable, "-c", ""])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.upstream
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_torchrun_ends_its_processes_with_us(number: signal.Signals, tmp_path: Path) -> None:
    worker = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(str(os.getpid())); time.sleep(60)"
    )
    torchrun = ["-m", "dinov2_noise.launch", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    parent = f"import sys; from dinov2_noise.launch import run; run([sys.executable, *{[*torchrun, '-c', worker]!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], env=clean_environment(), start_new_session=True) as process:
        files, end = [tmp_path / "0", tmp_path / "1"], time.monotonic() + 60
        while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        try:
            assert process.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        finally:
            process.kill()
    end = time.monotonic() + (60 if number == signal.SIGKILL else 0)  # torchrun has to notice it
    while any(map(_is_alive, files)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(_is_alive, files))


def _is_alive(file: Path) -> bool:
    try:
        os.kill(int(file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.upstream
@pytest.mark.parametrize("processes", [1, 2])
def test_a_wrong_config_is_the_last_line(processes: int, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("curriculum: {stages: [{name: noisy, epochs: 100, view: blurred}]}\n")
    command = ("-m", "dinov2_noise", "train", str(config), "--output", str(tmp_path / "run"), "--gpus", str(processes))
    done = run_python(*command)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "ConfigError: curriculum.stages[0].view" in last
    assert last.startswith("error: LaunchError: ConfigError" if processes == 1 else "error: LaunchError: process ")
    assert "extraInfo" not in last
    assert "Traceback" not in last
