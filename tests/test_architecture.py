"""The folder is the data flow: nothing imports backwards, and only `dinov2_noise.upstream` knows DINOv2."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path

import pytest

from dinov2_noise.curriculum.config import AnchorConfig, OptimOverrides, StageConfig, TeacherOverrides
from dinov2_noise.curriculum.frequency import BlurPatchConfig, CropsConfig, GaussianPatchConfig, LowPassConfig
from dinov2_noise.curriculum.sections import HealthConfig, LoaderConfig, MonitorConfig, StepConfig
from dinov2_noise.upstream import SEAMS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dinov2_noise"
# Later ones may import earlier ones; those of one line not each other.
FLOW = [
    ["errors", "progress", "command_line", "cpu", "xformers_ops", "torchvision_ops"],
    ["curves"],
    ["writing"],
    ["files"],
    ["decoding"],
    ["noise"],
    ["data"],
    ["denoise"],
    ["augment"],
    ["curriculum", "anchor", "health", "weights"],
    ["configs", "patching"],
    ["evaluation", "monitor"],
    ["upstream"],
    ["report"],
    ["plugin", "launch", "export"],
    ["slurm"],
    ["doctor", "check", "demo", "recipes", "toy"],
    ["evaluate_cli", "denoise_cli", "noise_cli", "data_cli", "use_cli", "report_cli", "toy_cli"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(FLOW) for name in names}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_part_has_its_place() -> None:
    assert {_part(path) for path in _sources(PACKAGE)} == {*RANK, "__init__"}


@pytest.mark.parametrize("path", _sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_backwards(path: Path) -> None:
    own = _part(path)
    for name in _imports(path):
        if not name.startswith("dinov2_noise.") or own == "__init__":
            continue
        other = name.split(".")[1]
        if other in RANK and other != own:
            assert RANK[other] < RANK[own], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", _sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_upstream_imports_dinov2(path: Path) -> None:
    if _part(path) != "upstream":
        assert not [name for name in _imports(path) if name == "dinov2" or name.startswith("dinov2.")]


def test_the_vendored_denoiser_knows_neither() -> None:
    names = {name for path in _sources(ROOT / "vendor") for name in _imports(path)}
    assert not [name for name in names if name.startswith(("dinov2", "dinov2_noise"))]


def test_one_seam_per_upstream_module_under_the_same_name() -> None:
    for theirs, ours in SEAMS.items():
        path = ROOT / (ours.replace(".", "/") + ".py")
        assert path.is_file()
        if theirs.startswith("dinov2."):
            assert ours.removeprefix("dinov2_noise.upstream.") == theirs.removeprefix("dinov2.")
            assert f"``{theirs}``" in path.read_text(encoding="utf-8").splitlines()[0]


def test_every_config_field_is_read_somewhere() -> None:
    attributes = set()
    for path in _sources(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
    kinds = (StageConfig, AnchorConfig, StepConfig, HealthConfig, LoaderConfig, MonitorConfig)
    images = (CropsConfig, LowPassConfig, GaussianPatchConfig, BlurPatchConfig)
    read = {field.name for kind in (*kinds, *images) for field in fields(kind)}
    assert read <= attributes
    # Overrides are read by name in ScheduleSettings, whose fields they replace.
    from dinov2_noise.curriculum.schedules import ScheduleSettings

    overridable = {field.name for kind in (OptimOverrides, TeacherOverrides) for field in fields(kind)}
    assert overridable <= {field.name for field in fields(ScheduleSettings)}


def test_setup_cfg_ships_every_package_and_data_file() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert packages == found | {"neighbor2neighbor"}
    patterns = {name: value.split(", ") for name, value in setup["options.package_data"].items()}
    data = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert len(data) > 5
    for path in data:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert any(path.match(pattern) for pattern in patterns.get(package, [])), path
