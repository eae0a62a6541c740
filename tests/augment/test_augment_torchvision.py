"""torchvision beside any torch: each case in a fresh process, since operators are declared once per process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DECLARE = "from dinov2_noise.torchvision_ops import declare_missing_ops\n"
# a torchvision of the test's own: found, never imported
FAKE_PACKAGE = "import sys; sys.path.insert(0, FAKE)\n"


def run(code: str, fake: Path | None = None) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = code if fake is None else f"FAKE = {str(fake)!r}\n{FAKE_PACKAGE}{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_torchvision(root: Path, compiled: str = "_C.so") -> Path:
    (root / "torchvision").mkdir()
    (root / "torchvision" / "__init__.py").write_text("")
    (root / "torchvision" / compiled).write_text("not a library")
    return root


def test_torchvision_imports_and_transforms_work() -> None:
    code = (
        DECLARE + "declare_missing_ops()\n"
        "import numpy as np\nfrom PIL import Image\nimport torchvision\nfrom torchvision import transforms\n"
        "image = Image.fromarray(np.full((32, 32, 3), 7, dtype=np.uint8))\n"
        "print(transforms.ToTensor()(transforms.RandomResizedCrop(16)(image)).mul(255).unique().tolist())\n"
    )
    assert run(code) == "[7.0]"


def test_declaring_twice_declares_once_and_after_the_import_nothing() -> None:
    code = DECLARE + "declare_missing_ops()\nimport torchvision\nprint(declare_missing_ops(), declare_missing_ops())\n"
    assert run(code) == "() ()"


def test_an_operator_that_is_only_declared_raises_when_called(tmp_path: Path) -> None:
    code = (
        "import torch\n" + DECLARE + "declare_missing_ops()\ntry:\n"
        "    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except NotImplementedError:\n    print('not implemented')\n"
    )
    assert run(code, fake_torchvision(tmp_path)) == "not implemented"


def test_a_compiled_part_that_does_not_load_is_replaced_by_declarations(tmp_path: Path) -> None:
    assert run(DECLARE + "print(declare_missing_ops())\n", fake_torchvision(tmp_path)) == "('nms', 'qnms')"


@pytest.mark.parametrize("compiled", ["_C.so", "_C_stable.so"])  # the second from torchvision 0.29 on
def test_a_compiled_part_that_loads_is_left_alone(compiled: str, tmp_path: Path) -> None:
    code = (
        "import torch\ncalls, kept = [], []\n"
        "def load(path):\n    calls.append(path)\n"
        "    kept.append(torch.library.Library('torchvision', 'DEF'))\n"
        "    for name in ('nms', 'qnms'):\n"
        "        kept[-1].define(name + '(Tensor a, Tensor b, float c) -> Tensor')\n"
        "torch.ops.load_library = load\n"
        + DECLARE
        + "print(declare_missing_ops(), declare_missing_ops(), len(calls))\n"
    )
    assert run(code, fake_torchvision(tmp_path, compiled)) == "() () 1"
