"""``dinov2.run.submit``: the launchers find shipped configs too.

Replaced: `get_args_parser`, whose ``--config-file`` then accepts ``dinov2_noise/configs/<name>.yaml`` from any
folder. (The launchers check that the file exists before the job, where `utils.config` would find it.) Read against
lines 24-75.
"""

from __future__ import annotations

import argparse
from functools import wraps
from typing import Any

from dinov2_noise.configs import resolve_config_file
from dinov2_noise.upstream.signatures import expect_signature


def attach(module: Any) -> None:
    original = expect_signature(module, "get_args_parser", lambda description=None, parents=None, add_help=True: None)

    @wraps(original)
    def get_args_parser(*args: Any, **options: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = original(*args, **options)
        for action in parser._actions:
            if action.dest == "config_file":
                action.type = resolve_config_file
        return parser

    module.get_args_parser = get_args_parser
