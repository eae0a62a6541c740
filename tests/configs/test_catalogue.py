"""The catalogue of published experiments: which there are, what they hold, and the files they become."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from dinov2_noise import configs
from dinov2_noise.cli import app
from dinov2_noise.configs import catalogue
from dinov2_noise.configs.guard import GUARD_LINE
from dinov2_noise.errors import ConfigError

NOISES = ("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7", "speckle1.0")
# Linear probe top-1 in % as reported: noisy, NC, denoiser kept.
IN100 = {
    "gauss50": (65.0, 72.8, 71.7),
    "gauss100": (55.4, 68.1, 69.0),
    "gauss255": (35.7, 47.8, 56.8),
    "shot10": (66.3, 72.3, 71.8),
    "shot3": (59.7, 67.9, 69.9),
    "shot1": (48.9, 59.3, 63.3),
    "speckle0.4": (66.4, 73.5, 73.0),
    "speckle0.7": (60.8, 70.2, 70.8),
    "speckle1.0": (59.6, 67.9, 69.9),
}
OTHERS = {
    "in100-clean": 74.0,
    "in100-nct-gauss255": 54.5,
    "in100-nc-gauss100-norestart": 62.0,
    "in100-baseline-gauss100-restart": 59.0,
    "in1k-baseline-gauss100": 70.7,
    "in1k-nct-gauss100": 72.1,
    "in1k-nct-gauss100-published": 72.1,
    "in1k-denoised-gauss100": 73.1,
    "in1k-baseline-gauss255": 51.0,
    "in1k-nc-gauss255": 53.5,
    "in1k-nct-gauss255": 55.8,
    "in1k-nct-gauss255-published": 55.8,
    "in1k-denoised-gauss255": 57.2,
    "in1k-fast": 76.2,
    "in1k-clean-250": 77.8,
}
NCT = {
    "in100-nct-gauss100": 4.0,
    "in100-nct-gauss255": 1.1,
    "in100-nct-shot1": 5.0,
    "in100-nct-speckle1.0": 2.0,
    "in1k-nct-gauss100": 2.0,
    "in1k-nct-gauss255": 1.6,
    "in1k-nct-gauss100-published": 2.0,
    "in1k-nct-gauss255-published": 1.6,
}
# Anchors as in NCT.
FAST_NCT = {name.replace("-nct-", "-fast-nct-"): weight for name, weight in NCT.items() if "published" not in name}

ALL = {name: catalogue.experiment(name) for name in catalogue.names()}


def _body(text: str) -> str:
    return text[text.index("\ntrain:") :]


def _stages(name: str) -> list[tuple[int, str, int | None, bool]]:
    stages = catalogue.experiment(name).config["curriculum"]["stages"]
    return [
        (stage["epochs"], stage["view"], stage.get("schedule_epochs"), stage.get("restart", False)) for stage in stages
    ]


def test_every_published_experiment_is_there() -> None:
    expected = {f"in100-{arm}-{noise}" for arm in ("baseline", "denoised", "nc") for noise in NOISES}
    expected |= {f"in100-nc-{noise}-switch{epoch}" for noise in NOISES for epoch in (110, 120, 130, 150)}
    expected |= {f"in100-nc-{noise}-200plus200" for noise in NOISES}
    expected |= {f"in100-nc-{noise}-500plus500" for noise in NOISES[:3]}
    expected |= {f"in1k-{arm}-gauss{sigma}" for arm in ("baseline", "denoised", "nc", "nct") for sigma in (100, 255)}
    expected |= {*NCT, *OTHERS, "in100-nc-gauss100-switch100", "in100-nc-gauss100-200plus800"}
    assert expected <= set(catalogue.names())
    assert len([name for name, run in ALL.items() if "Ditch" in run.paper and "Fast" not in run.paper]) == 118
    fast = {"fast", "fast-64", "fast-96", "fast-128", "fast-nopatch", "patch"}
    expected = {f"{of}-{name}" for of in ("in1k", "in100") for name in fast} | {"in1k-clean-200", "in1k-clean-250"}
    assert {name for name, run in ALL.items() if run.paper.startswith('"FastDINOv2')} == expected
    assert {name for name, run in ALL.items() if "which neither describes" in run.paper} == {*FAST_NCT}
    assert len(catalogue.names()) == 118 + 14 + 6
    assert len(set(configs.names())) == len(configs.names()) == 118 + 14 + 6 + 8


def test_no_two_are_equal() -> None:
    bodies = {_body(catalogue.compose(name)) for name in catalogue.names()}
    assert len(bodies) == len(catalogue.names())


def test_expected_figures_are_the_reported_ones() -> None:
    arms = ("baseline", "nc", "denoised")
    figures = OTHERS | {
        f"in100-{arm}-{noise}": value for noise, row in IN100.items() for arm, value in zip(arms, row, strict=True)
    }
    found = {name: e.expected_percent for name, e in ALL.items() if e.expected_percent is not None}
    assert found == figures
    for name, experiment in ALL.items():
        line = next(line for line in catalogue.compose(name).splitlines() if line.startswith("# Expected:"))
        if name in figures:
            images = f"denoised {experiment.noise}" if "-denoised-" in name else experiment.noise
            about = "about " if name.startswith("in100-nct-") else ""
            assert f"on {images} validation images {about}{figures[name]:.1f} %" in line
        else:
            assert "no figure known" in line


def test_stages_are_the_published_ones() -> None:
    assert _stages("in100-nct-gauss255") == [(140, "denoised", 200, False), (60, "noisy", None, True)]
    assert _stages("in100-nc-shot1-switch110") == [(110, "denoised", 200, False), (90, "noisy", None, True)]
    assert _stages("in100-nc-gauss100-norestart") == [(140, "denoised", 200, False), (60, "noisy", None, False)]
    assert _stages("in100-baseline-gauss100-restart") == [(140, "noisy", 200, False), (60, "noisy", None, True)]
    assert _stages("in100-nc-gauss100-200plus800") == [(200, "denoised", 200, False), (800, "noisy", None, True)]
    assert _stages("in100-baseline-shot3") == [(200, "noisy", None, False)]
    assert _stages("in1k-nc-gauss100") == [(30, "denoised", 100, False), (70, "noisy", None, True)]
    assert _stages("in1k-fast") == _stages("in100-fast-64") == [(150, "noisy", 200, False), (50, "noisy", None, True)]


def test_fastdinov2_differs_from_its_ablations_in_one_thing() -> None:
    def stages(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = OmegaConf.create(configs.read(name)).curriculum.stages
        return list(found)

    patch = {"max_sigma": 0.5}
    low, full = stages("in1k-fast")
    assert low.crops == {"global_crops_size": 112, "local_crops_size": 48}
    assert full.gaussian_patch == patch
    assert full.overrides == {"optim": {"warmup_epochs": 5}}
    assert "crops" not in full
    assert "gaussian_patch" not in low
    for of, side, local in (("in1k", 64, 32), ("in100", 96, 48), ("in1k", 128, 48)):
        other_low, other_full = stages(f"{of}-fast-{side}")
        assert other_full == full
        assert other_low == {**low, "crops": {"global_crops_size": side, "local_crops_size": local}}
        assert local == 16 * round(side * 3 / 7 / 16)
    assert stages("in100-fast-nopatch") == [low, {key: value for key, value in full.items() if key != "gaussian_patch"}]
    assert stages("in1k-patch") == [{"name": "clean", "epochs": 200, "view": "noisy", "gaussian_patch": patch}]


def test_both_papers_in_one_run_keep_their_shares() -> None:
    for name, run in ((name, catalogue.experiment(name)) for name in FAST_NCT):
        low, full, noisy = run.config["curriculum"]["stages"]
        assert low["epochs"] == 3 * full["epochs"], name
        assert (low["crops"]["global_crops_size"], "crops" in full, "crops" in noisy) == (112, False, False)
        assert ("restart" in full, noisy["restart"], noisy["gaussian_patch"]) == (False, True, {"max_sigma": 0.5})
        assert (low["view"], full["view"], noisy["view"]) == ("denoised", "denoised", "noisy")
        assert low["schedule_epochs"] == run.config["optim"]["epochs"]


def test_anchors_have_the_published_weights() -> None:
    found = {}
    for name, experiment in ALL.items():
        for stage in experiment.config["curriculum"]["stages"]:
            if "anchor" in stage:
                assert stage["anchor"]["heads"] == "ema"
                assert (stage["anchor"].get("teacher") == "???") == name.endswith("-published")
                found[name] = stage["anchor"]["weight"]
    assert found == NCT | FAST_NCT


def test_images_of_each_arm() -> None:
    path = {name: e.config["train"]["dataset_path"] for name, e in ALL.items()}
    root = "ImageNet:split=TRAIN:root=imagenet100-speckle0.4"
    assert path["in100-baseline-speckle0.4"] == root
    assert path["in100-denoised-speckle0.4"] == f"{root}-denoised"
    assert path["in100-nc-speckle0.4"] == f"{root}:denoised=imagenet100-speckle0.4-denoised"
    assert path["in100-clean"] == "ImageNet:split=TRAIN:root=imagenet100"


@pytest.mark.parametrize(
    ("written", "composed"),
    [
        ("nct", "in1k-nct-gauss255"),
        ("nc", "in1k-nc-gauss255"),
        ("baseline_noisy", "in1k-baseline-gauss255"),
        ("fast", "in1k-fast"),
        ("fast_nct", "in1k-fast-nct-gauss255"),
    ],
)
def test_files_written_by_hand_agree_with_the_catalogue(written: str, composed: str) -> None:
    assert OmegaConf.create(configs.read(written)) == OmegaConf.create(configs.read(composed))


def test_every_config_has_its_header_and_ends_in_the_guard() -> None:
    for name in configs.names():
        text = configs.read(name)
        header = text[: text.index("\ntrain:")]
        for label in ("# Paper:", "# Command:", "# Batch:", "# Cost:", "# Expected:", "# Measured here:"):
            assert label in header, name
        assert f"dinov2_noise/configs/{name}.yaml" in header
        assert all(len(line) <= 160 and line.startswith("#") for line in header.splitlines()), name
        assert text.endswith(f"  {GUARD_LINE}\n"), name


def test_listing_has_one_aligned_line_per_config() -> None:
    rows = re.findall(r"^  (\S+) +(.+)$", configs.listing(), flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(configs.names())
    starts = {line.index(title) for line, (_, title) in zip(_indented(configs.listing()), rows, strict=True)}
    assert len(starts) == 1
    some = re.findall(r"^  (\S+)", configs.listing("NCT, 140"), flags=re.MULTILINE)
    assert some == [name for name in NCT if name.startswith("in100")]
    with pytest.raises(ConfigError, match="no config matches 'gaus99'"):
        configs.listing("gaus99")


def _indented(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("  ")]


def test_unknown_names_are_told_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"no config 'in100-nct-gauss25': the closest are in100-nct-gauss255"):
        configs.read("in100-nct-gauss25")
    with pytest.raises(
        ConfigError, match=r"no config file and no config of the name 'in1k-nc-gaus100'.*in1k-nc-gauss1"
    ):
        configs.config_file("in1k-nc-gaus100")
    with pytest.raises(ConfigError, match=r"no shipped config 'dinov2_noise/configs/in100-clea\.yaml'.*in100-clean"):
        configs.resolve_config_file("dinov2_noise/configs/in100-clea.yaml")


def test_a_composed_config_becomes_a_file_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    name = "in100-denoised-speckle0.4"
    path = Path(configs.resolve_config_file(f"dinov2_noise/configs/{name}.yaml"))
    assert path.parent == tmp_path / "dinov2-noise" / "configs"
    assert re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{8}}\.yaml", path.name)
    assert path.read_text(encoding="utf-8") == catalogue.compose(name)
    assert configs.config_file(name) == configs.resolve_config_file(str(path)) == str(path)
    before = path.stat().st_mtime_ns
    configs.config_file(name)
    assert path.stat().st_mtime_ns == before, "written once"
    path.write_text("edited", encoding="utf-8")
    configs.config_file(name)
    assert path.read_text(encoding="utf-8") == catalogue.compose(name), "an edited or half-written file is replaced"
    assert configs.config_file("nct") == str(configs.shipped()["nct"])


def test_a_job_on_another_machine_writes_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers give the job the path of their own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "launcher"))
    told = configs.config_file("in100-clean")
    Path(told).unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    found = Path(configs.resolve_config_file(told))
    assert found == tmp_path / "node" / "dinov2-noise" / "configs" / Path(told).name
    assert found.read_text(encoding="utf-8") == catalogue.compose("in100-clean")
    with pytest.raises(ConfigError, match="composes another config"):
        configs.resolve_config_file(str(Path(told).with_name("in100-clean-00000000.yaml")))


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = Path(configs.config_file("in100-clean"))
    assert tmp_path not in path.parents
    assert path.read_text(encoding="utf-8") == catalogue.compose("in100-clean")


def test_the_command_lists_and_prints() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["configs", "--grep", "-nct-"]).output
    assert "in100-nct-gauss255" in listed
    assert "-nc-" not in listed
    assert runner.invoke(app, ["configs"]).output == configs.listing() + "\n"
    printed = runner.invoke(app, ["configs", "in100-nct-gauss255"]).output
    assert printed == catalogue.compose("in100-nct-gauss255")
    with pytest.raises(ConfigError, match=r"no config 'in100-nct': the closest are in100-nct-gauss100"):
        runner.invoke(app, ["configs", "in100-nct"], catch_exceptions=False)
