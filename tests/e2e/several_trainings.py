"""Runs upstream's training many times over without importing it each time: a child of this process is one rank.

Reads one JSON object a line: ``{"start": [arguments of dinov2.train.train], "environment": {…}, "output": file}``,
answered by the pid; ``{"wait": pid}``, answered by the exit status (minus the signal).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dinov2.train.train import get_args_parser, main


def start(request: dict[str, Any]) -> int:
    """The pid of a new process; that process itself trains and ends as ``python -m dinov2.train.train`` would."""
    pid = os.fork()
    if pid:
        return pid
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(request["environment"])
    main(get_args_parser().parse_args(request["start"]))
    sys.exit(0)


if __name__ == "__main__":
    while line := sys.stdin.readline():
        asked = json.loads(line)
        answer = start(asked) if "start" in asked else os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        print(json.dumps(answer), flush=True)
