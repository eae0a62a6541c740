"""The published experiments as complete configs, composed from the differences in ``catalogue.yaml``.

A family of that table is a name, a data set, stages and what else differs, written with ``${noise}``, ``${epochs}`` and
the like; it stands for one experiment per noise and variant. Figures, settings and the list of runs are those of
"Ditch the Denoiser", arXiv 2505.12191, and of its code, and those of "FastDINOv2", arXiv 2507.03779. Departure: a few
combine both papers, and say so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

from omegaconf import OmegaConf

from dinov2_noise.configs.guard import GUARD_LINE

TABLE = Path(__file__).with_name("catalogue.yaml")
ARMS = {
    "clean": "clean images",
    "baseline": "DINOv2 on noisy images",
    "nc": "NC",
    "nct": "NCT",
    "denoised": "denoiser kept",
    "norestart": "NC without restart",
    "restart": "noisy with restart",
    "fast": "FastDINOv2",
    "clean250": "DINOv2 at 250 epochs",
}
_BESIDE = (
    "clean",
    "baseline",
    "nc",
    "nct",
    "denoised",
    "fast",
    "clean250",
)  # always told; the ablations only among themselves


@dataclass(frozen=True)
class Experiment:
    """One published run, or one made of published ones.

    Attributes:
        name: unique, as in ``in100-nct-gauss255``.
        group: heading of the listing.
        paper: where it was published, in words.
        title: what is trained, in a few words.
        set_name: key of ``sets`` in the table.
        noise: ``gauss255`` and so on, or ``clean``.
        figure: which of the reported figures of ``noise`` is this run's; ``also``: what else is known of it.
        config: the differences from upstream's defaults, without the guard.
        differs: departures from the publication.
        options: what must be given on the command line, beside the data.
        before: what must be run first.
    """

    name: str
    group: str
    paper: str
    title: str
    set_name: str
    noise: str
    figure: str | None
    also: str
    config: Mapping[str, Any]
    differs: tuple[str, ...]
    options: tuple[str, ...]
    before: str

    @property
    def expected_percent(self) -> float | None:
        """Reported top-1 accuracy of a linear probe in %, where one is known."""
        return reported(self.set_name, self.noise).get(self.figure or "")

    @property
    def summary(self) -> str:
        """One line: set, noise, what is trained."""
        where = _set(self.set_name)["title"].split(",")[0]
        noise = "" if self.noise == "clean" else f" with {self.noise}"
        return f"{where}{noise}: {self.title}"


def names() -> tuple[str, ...]:
    """Names of all experiments, in the table's order."""
    return tuple(_members())


@cache
def experiment(name: str) -> Experiment:
    """The experiment ``name``, one of `names`."""
    family, values = _members()[name]
    member: Any = OmegaConf.to_container(OmegaConf.create(family | values), resolve=True)
    settings, noise = _set(member["set"]), member["noise"]
    of_set = [settings.get("differs"), "" if noise == "clean" else settings["differs_noisy"]]
    return Experiment(
        name=name,
        group=member["group"],
        paper=_table()["papers"][member.get("paper", "ditch")],
        title=member["title"],
        set_name=member["set"],
        noise=noise,
        figure=member.get("figure"),
        also=member.get("also", ""),
        config=_config(settings["config"], member),
        differs=tuple(text for text in (member.get("differs"), *of_set) if text),
        options=tuple(member.get("options", ())),
        before=member.get("before", ""),
    )


def reported(set_name: str, noise: str) -> Mapping[str, float]:
    """Reported linear probe top-1 in % of the last checkpoint: key of `ARMS` → accuracy on that arm's images."""
    return dict(_table()["reported"][set_name].get(noise, {}))


@cache
def compose(name: str) -> str:
    """The complete config of the experiment ``name``, as text with a header."""
    found = experiment(name)
    body = OmegaConf.to_yaml(OmegaConf.create(dict(found.config)))
    return f"{_header(found)}\n{body}  {GUARD_LINE}\n"


@cache
def _table() -> Mapping[str, Any]:
    table = OmegaConf.to_container(OmegaConf.load(TABLE))
    assert isinstance(table, dict)
    return MappingProxyType(table)


def _set(name: str) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = _table()["sets"][name]
    return settings


@cache
def _members() -> Mapping[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Name → family, and the values that its ``${…}`` stand for."""
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for family in _table()["families"]:
        pattern = {key: value for key, value in family.items() if key not in ("noises", "variants")}
        for noise, of_noise in family["noises"].items():
            for variant in family.get("variants", [{}]):
                values = {"images": _set(family["set"])["images"], "noise": noise} | of_noise | variant
                name = Template(family["name"]).substitute(values)
                assert name not in found, f"two experiments {name} in {TABLE.name}"
                found[name] = (pattern, values)
    return MappingProxyType(found)


def _config(shared: Mapping[str, Any], member: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a member's config; ``optim`` comes last, where the guard is added."""
    own, stages = member.get("config", {}), member["stages"]
    return {
        "train": {"dataset_path": member["dataset"]} | shared["train"],
        **{section: shared[section] | own.get(section, {}) for section in shared if section != "train"},
        "curriculum": {"stages": stages},
        "optim": {"epochs": sum(stage["epochs"] for stage in stages)},
    }


def _header(run: Experiment) -> str:
    rows = [
        ("Paper:", f"{run.paper}, {_set(run.set_name)['title']}{_of_noise(run)}."),
        ("Command:", _command(run)),
        ("Before:", f"{run.before}." if run.before else ""),
        ("Batch:", _batch(run)),
        ("Cost:", _cost(run)),
        ("Expected:", _expected(run)),
        ("Measured here:", "not yet."),
        *(("Differs:", f"{text}.") for text in run.differs),
    ]
    lines = [f"# {run.summary}."]
    for label, text in rows:
        lines += _row(label, text) if text else []
    return "\n".join(lines)


def _row(label: str, text: str) -> list[str]:
    """A labelled paragraph; commands keep their own line breaks and are not wrapped."""
    paragraphs = text.split("\n")
    lines = paragraphs if len(paragraphs) > 1 else textwrap.wrap(text, 126, break_on_hyphens=False)
    return [f"# {label:<9} {line}" if number == 0 else f"#{'':<11}{line}" for number, line in enumerate(lines)]


def _of_noise(run: Experiment) -> str:
    return "" if run.noise == "clean" else f", {run.noise}"


def _command(run: Experiment) -> str:
    gpus = _set(run.set_name)["gpus"]
    return "\n".join(
        [
            f"python dinov2/run/train/train.py --nodes 1 --ngpus {gpus} "
            f"--config-file dinov2_noise/configs/{run.name}.yaml --output-dir OUT",
            f"train.dataset_path={run.config['train']['dataset_path']}",
            *run.options,
        ]
    )


def _batch(run: Experiment) -> str:
    gpus, per_gpu = _set(run.set_name)["gpus"], run.config["train"]["batch_size_per_gpu"]
    shape = f"{per_gpu} on one GPU" if gpus == 1 else f"{per_gpu} on each of {gpus} GPUs = {gpus * per_gpu}"
    whose = _set(run.set_name).get("batch", "the published one")
    return f"{shape}, {whose}. With N GPUs set train.batch_size_per_gpu to {gpus * per_gpu} / N."


def _cost(run: Experiment) -> str:
    epochs, length = run.config["optim"]["epochs"], run.config["train"]["OFFICIAL_EPOCH_LENGTH"]
    text = f"{epochs} epochs of {length:,} iterations, {epochs * length:,} in all"
    stages = run.config["curriculum"]["stages"]
    if "anchor" in stages[-1]:
        ordinal = "third" if len(stages) == 3 else "second"
        text += f"; a step of the {ordinal} stage has one more teacher forward than plain DINOv2"
    if any("crops" in stage for stage in stages):
        text += f"; FLOPs per stage: dinov2-noise train {run.name} --estimate"
    return f"{text}."


# Known as "about" only.
_APPROXIMATE = {("in100", "nct")}


def _expected(run: Experiment) -> str:
    images = {"clean": "clean", "denoised": f"denoised {run.noise}"}.get(
        run.config["curriculum"]["stages"][-1]["name"], run.noise
    )
    settings, known = _set(run.set_name), reported(run.set_name, run.noise)
    shown = [
        f"{ARMS[arm]} {known[arm]:.1f}"
        for arm in ARMS
        if arm in known and arm != run.figure and (arm in _BESIDE or run.figure in ("norestart", "restart"))
    ]
    which = "linear probe top-1 in % of" if run.set_name.endswith("-fast") else "at the published length:"
    others = f"; {which} {', '.join(shown)}" if shown else ""
    also = f"; {run.also}" if run.also else ""
    if run.expected_percent is None:
        return f"no figure known{others}{also}."
    beside = f" ({', '.join(shown)})" if shown else ""
    about = "about " if (run.set_name, run.figure) in _APPROXIMATE else ""
    figure = f"linear probe top-1 on {images} validation images {about}{run.expected_percent:.1f} %"
    return f"{figure}{beside}{settings['spread']}{also}."
