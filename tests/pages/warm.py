"""``dinov2-noise`` without the seconds that importing torch takes: a process that has imported it forks for each call.

As a program, ``python warm.py SOCKET``, it is that process. `install` writes a ``dinov2-noise`` into a folder, to be
put on PATH, that asks it: the command runs in a process of its own, with the caller's folder, environment, files and
exit status. What it does is the same `main`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ASK = """#!{python} -SE
import json, os, socket, struct, sys
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    socket.send_fds(server, [struct.pack("!I", len(asked))], [0, 1, 2])
    server.sendall(asked)
    answer = server.recv(1)
sys.exit(answer[0] if answer else 70)  # no answer: the process died
"""
_START_S = 120


@contextmanager
def install(folder: Path) -> Iterator[Path]:
    """A folder for PATH whose ``dinov2-noise`` is fast, while the block lasts."""
    path = folder / "warm.socket"
    client = folder / "dinov2-noise"
    client.write_text(_ASK.format(python=sys.executable, socket=str(path)), encoding="utf-8")
    client.chmod(0o755)
    process = subprocess.Popen([sys.executable, __file__, str(path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + _START_S
        while not path.exists():
            assert process.poll() is None, "the waiting process ended"
            assert time.monotonic() < deadline, "the waiting process did not start"
            time.sleep(0.05)
        yield folder
    finally:
        process.terminate()
        process.wait()


def serve(path: str) -> None:
    """Fork for each call until this process is ended, or the one that started it is gone."""
    starter = os.getppid()
    # What commands would import one after the other, seconds each. Not dinov2: each call decides where that is.
    import omegaconf  # noqa: F401
    import pydicom  # noqa: F401
    import scipy.ndimage
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch._dynamo  # every optimizer imports it
    import torch.distributed.fsdp
    import torch.utils.tensorboard  # noqa: F401

    import dinov2_noise.cli
    import dinov2_noise.denoise
    import dinov2_noise.noise  # noqa: F401

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path + ".new")
        server.listen()
        server.settimeout(1)
        os.rename(path + ".new", path)
        while os.getppid() == starter:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            finally:
                _reap()
            connection.setblocking(True)
            if os.fork() == 0:
                server.close()
                _call(connection)
            connection.close()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _call(connection: socket.socket) -> None:
    """One command, in the place of its caller; never returns."""
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += connection.recv(65536)
    arguments, folder, environment = json.loads(asked)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for place, file in enumerate(files):
        os.dup2(file, place)
    for entry in reversed(environment.get("PYTHONPATH", "").split(os.pathsep)):
        if entry:
            sys.path.insert(0, entry)
    sys.argv = ["dinov2-noise", *arguments]
    connection.send(bytes([_status()]))
    os._exit(0)


def _status() -> int:
    from dinov2_noise.cli import main

    status = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
