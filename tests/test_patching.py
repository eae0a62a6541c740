"""The one change to upstream's files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dinov2_noise import patching
from dinov2_noise.errors import MissingFolderError, PluginError

ROOT = Path(__file__).parent.parent
# The last lines of dinov2/__init__.py at b8931f7, from line 4 on: the context of the commit in patches/.
UPSTREAM_INIT = (
    '# 1\n# 2\n# 3\n# found in the LICENSE file in the root directory of this source tree.\n\n__version__ = "0.0.1"\n'
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "dinov2" / "configs").mkdir(parents=True)
    (tmp_path / "dinov2" / "__init__.py").write_text(UPSTREAM_INIT)
    return tmp_path


def test_patch_check_reverse_round_trip(checkout: Path) -> None:
    init = patching.find_init(checkout)
    assert not patching.is_patched(init)
    assert patching.patch(init)
    assert patching.is_patched(init)
    assert not patching.patch(init), "idempotent"
    assert init.read_text().count("_load_plugins()") == 2
    assert patching.reverse(init)
    assert init.read_text() == UPSTREAM_INIT
    assert not patching.reverse(init)


def test_the_command_and_the_commit_make_the_same_file(checkout: Path) -> None:
    (patch,) = (ROOT / "patches" / "dinov2").glob("*.patch")
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    subprocess.run(["git", "apply", "--unidiff-zero", "-C1", str(patch)], cwd=checkout, check=True)
    by_commit = (checkout / "dinov2" / "__init__.py").read_text()
    assert by_commit == UPSTREAM_INIT + patching.BLOCK


def test_file_without_final_newline(checkout: Path) -> None:
    init = checkout / "dinov2" / "__init__.py"
    init.write_text('__version__ = "0.0.1.dev2"')
    patching.patch(init)
    namespace: dict[str, object] = {}
    assert init.read_text().startswith('__version__ = "0.0.1.dev2"\n\n\n#')
    exec(init.read_text().replace("plugin.load()()", "pass"), namespace)
    assert namespace["__version__"] == "0.0.1.dev2"
    assert "_load_plugins" not in namespace


def test_edited_block_is_not_touched(checkout: Path) -> None:
    init = patching.find_init(checkout)
    patching.patch(init)
    init.write_text(init.read_text().replace("plugin.load()()", "plugin.load()"))
    for action in (patching.is_patched, patching.patch, patching.reverse):
        with pytest.raises(PluginError, match=r"edited form.*git checkout"):
            action(init)


def test_not_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError, match="is not a DINOv2 checkout"):
        patching.find_init(tmp_path)


def test_finds_the_dinov2_folder_itself(checkout: Path) -> None:
    assert patching.find_init(checkout / "dinov2") == patching.find_init(checkout)
