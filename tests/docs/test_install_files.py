"""environment.yml, the Dockerfile and the pages agree with setup.cfg, requirements/ and the Makefile."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
_INSTRUCTIONS = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}


def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined, comments taken out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [tuple(line.split(None, 1)) for line in joined if line.strip()]  # type: ignore[misc]


def pip_requirements(text: str) -> list[list[str]]:
    """The words after ``pip install`` of every such command, without options that only change the output."""
    found = re.findall(r"pip install ([^\n&]*)", text)
    return [
        [word for word in shlex.split(line) if word not in ("--quiet", "--disable-pip-version-check")] for line in found
    ]


def test_environment_asks_for_what_setup_cfg_and_requirements_ask_for() -> None:
    environment: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "environment.yml"))
    *conda, pip = environment["dependencies"]
    assert environment["name"] == "dinov2-noise"
    assert [re.split("[=<>]", item)[0] for item in conda] == ["python", "pip"], "all else comes through pip"
    least = tuple(int(part) for part in setup()["options"]["python_requires"].removeprefix(">=").split("."))
    assert tuple(int(part) for part in conda[0].removeprefix("python=").split(".")) >= least
    torch, package = pip["pip"]
    assert (ROOT / torch.removeprefix("--requirement ")).read_text() == "torch==2.13.0\ntorchvision==0.28.0\n"
    extras = re.fullmatch(r"\.\[(.*)\]", package)
    assert extras
    assert set(extras[1].split(",")) <= set(setup()["options.extras_require"])


def test_pins_lie_in_the_ranges_of_setup_cfg() -> None:
    ranges = dict(re.findall(r"^(\w+)>=([\d.]+)$", setup()["options"]["install_requires"], flags=re.MULTILINE))
    pins = dict(re.findall(r"^(\w+)==([\d.]+)$", (ROOT / "requirements" / "torch.txt").read_text(), flags=re.MULTILINE))
    assert set(pins) == {"torch", "torchvision"}
    for name, pin in pins.items():
        assert tuple(map(int, pin.split("."))) >= tuple(map(int, ranges[name].split("."))), name


def test_dockerfile_installs_what_the_makefile_installs() -> None:
    from_docker = pip_requirements((ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " "))
    from_make = pip_requirements((ROOT / "Makefile").read_text(encoding="utf-8"))
    files = [[word for word in words if word.startswith("requirements/")] for words in from_make]
    assert [[w for w in words if w.startswith("requirements/")] for words in from_docker] == [
        ["requirements/torch.txt"],
        ["requirements/torch.txt"],  # as a constraint: nothing may replace the pinned torch
        ["requirements/dinov2-wheel.txt"],
    ]
    assert files == [["requirements/torch.txt"], [], ["requirements/dinov2-wheel.txt"]]
    assert from_docker[1][0] == "-c"
    assert {"--no-deps", "--require-hashes"} <= set(from_docker[2])
    assert from_docker[2] == from_make[2]
    package = re.fullmatch(r"\.\[(.*)\]", from_docker[1][-1])
    assert package
    assert set(package[1].split(",")) <= set(setup()["options.extras_require"])


def test_dockerfile_copies_what_is_there_and_all_that_the_package_needs() -> None:
    copied = [part.split()[0] for name, part in instructions() if name == "COPY"]
    several = [part.split()[:-1] for name, part in instructions() if name == "COPY"]
    for source in [path for paths in several for path in paths]:
        assert (ROOT / source).exists(), source
    needed = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "dinov2_noise/", "vendor/", "requirements/"}
    assert needed <= {path for paths in several for path in paths}, copied
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not {name.rstrip("/") for name in needed} & set(ignored)


def test_dockerfile_has_a_base_for_a_gpu_and_ends_as_another_user() -> None:
    steps = instructions()
    assert {name for name, _ in steps} <= _INSTRUCTIONS
    assert steps[0] == ("ARG", "BASE=nvidia/cuda:12.6.3-base-ubuntu24.04")
    assert steps[1] == ("FROM", "${BASE}")
    users = [rest for name, rest in steps if name == "USER"]
    assert users == ["dino"]
    after = [name for name, _ in steps[steps.index(("USER", "dino")) :]]
    assert after == ["USER", "WORKDIR", "ENTRYPOINT", "CMD"], "nothing is written as that user"
    assert any("useradd" in rest and "dino" in rest for name, rest in steps if name == "RUN")


@pytest.mark.parametrize("name", ["BASE", "TORCH_INDEX"])
def test_build_arguments_of_the_page_are_those_of_the_dockerfile(name: str) -> None:
    assert f"--build-arg {name}=" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert any(step == "ARG" and rest.startswith(f"{name}=") for step, rest in instructions())


def test_extras_named_on_the_page_exist() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`[a-z`, ]+`) \|", text, flags=re.MULTILINE)
    named = {extra for row in table for extra in re.findall(r"`([a-z]+)`", row)}
    named |= {extra for group in re.findall(r"\.\[([a-z,]+)\]", text) for extra in group.split(",")}
    assert {"demo", "fits", "docs", "xformers"} <= named
    assert named <= set(setup()["options.extras_require"])
