"""The plug-in is active in every kind of process that upstream's scripts start, and its absence is loud."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import run_python

from dinov2_noise.configs import GUARD, resolve_config_file, shipped
from dinov2_noise.errors import ConfigError

pytestmark = pytest.mark.upstream

ATTACHED = """
import importlib
from dinov2_noise.upstream import SEAMS, importing
import dinov2
def attached():
    return sum(importing.is_attached(importlib.import_module(name)) for name in SEAMS)
"""
ALL = 16  # seams: fifteen modules of upstream, and torchvision


def _script(folder: Path, body: str) -> Path:
    path = folder / "script.py"
    path.write_text(ATTACHED + textwrap.dedent(body))
    return path


def test_fresh_process(tmp_path: Path) -> None:
    done = run_python(str(_script(tmp_path, "print(attached())")))
    assert done.stdout.strip() == str(ALL), done.stderr


def test_importing_dinov2_imports_nothing_heavy() -> None:
    code = "import sys, dinov2; print([m for m in ('torch', 'torchvision', 'numpy', 'omegaconf') if m in sys.modules])"
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_spawned_child(tmp_path: Path) -> None:
    body = """
    import multiprocessing
    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(attached))
    """
    done = run_python(str(_script(tmp_path, body)))
    assert done.stdout.strip() == str(ALL), done.stderr


def test_two_ranks_of_torchrun(tmp_path: Path) -> None:
    body = """
    import os
    import dinov2.distributed as distributed
    distributed.enable(overwrite=True)
    import torch
    total = torch.tensor([attached()])
    torch.distributed.all_reduce(total)
    if distributed.get_global_rank() == 0:
        print("sum over ranks", total.item(), "of", distributed.get_global_size())
    torch.distributed.destroy_process_group()
    """
    script = _script(tmp_path, body)
    done = run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
    assert f"sum over ranks {2 * ALL} of 2" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("tasks", [1, 2])
def test_local_executor_of_submitit(tmp_path: Path, tasks: int) -> None:
    body = f"""
    import submitit
    def job():
        import dinov2.distributed as distributed
        distributed.enable(overwrite=True)
        return attached(), distributed.get_global_rank(), distributed.get_global_size()
    executor = submitit.LocalExecutor(folder={str(tmp_path / "jobs")!r})
    executor.update_parameters(timeout_min=3, tasks_per_node={tasks})
    print(executor.submit(job).results())
    """
    done = run_python(str(_script(tmp_path, body)))
    expected = [(ALL, rank, tasks) for rank in range(tasks)]
    assert done.stdout.strip().endswith(str(expected)), done.stderr[-2000:]


def test_a_plug_in_that_fails_makes_every_import_fail(tmp_path: Path) -> None:
    distribution = tmp_path / "broken-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[dinov2.plugins]\nbroken = broken_plugin:activate\n")
    (tmp_path / "broken_plugin.py").write_text("def activate():\n    raise RuntimeError('boom')\n")
    code = """
    for attempt in range(2):
        try:
            import dinov2
        except RuntimeError as error:
            print("attempt", attempt, error)
    """
    done = run_python("-c", textwrap.dedent(code), path=(tmp_path,))
    assert done.stdout.split("\n")[:2] == ["attempt 0 boom", "attempt 1 boom"], done.stderr


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_config_stops_on_a_checkout_without_the_patch(
    name: str, copy_of_upstream: Callable[[bool], Path]
) -> None:
    """What upstream's `setup` does with a config, on a checkout that loads no plug-ins."""
    code = f"""
    import argparse
    from dinov2.utils.config import apply_scaling_rules_to_cfg, get_cfg_from_args
    cfg = get_cfg_from_args(argparse.Namespace(config_file={str(shipped()[name])!r}, output_dir=".", opts=[]))
    apply_scaling_rules_to_cfg(cfg)
    print("trained plain DINOv2 in silence")
    """
    done = run_python("-c", textwrap.dedent(code), path=(copy_of_upstream(False),))
    assert done.returncode != 0
    assert "silence" not in done.stdout
    assert f"Unsupported interpolation type {GUARD}" in done.stderr
    assert "full_key: optim.scaling_rule" in done.stderr


def test_shipped_configs_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_config_file("dinov2_noise/configs/nct.yaml") == str(shipped()["nct"])
    assert resolve_config_file("mine/nct.yaml") == "mine/nct.yaml"
    with pytest.raises(ConfigError, match=r"no shipped config 'dinov2_noise/configs/nctt.yaml': the closest are nct"):
        resolve_config_file("dinov2_noise/configs/nctt.yaml")


def test_doctor_tells_patched_from_plain(copy_of_upstream: Callable[[bool], Path]) -> None:
    patched = run_python("-m", "dinov2_noise", "doctor", path=(copy_of_upstream(True),))
    assert patched.returncode == 0, patched.stdout + patched.stderr
    assert "16 attached" in patched.stdout
    plain = run_python("-m", "dinov2_noise", "doctor", path=(copy_of_upstream(False),))
    assert plain.returncode == 1
    assert "run `dinov2-noise patch" in " ".join(plain.stdout.split())
