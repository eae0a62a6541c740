"""A training run's folder, read as far as it can be read: what is damaged or missing is named, not raised."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from dinov2_noise.configs import register_guard
from dinov2_noise.curriculum.config import parse_curriculum
from dinov2_noise.errors import ConfigError

CONFIG, TRAINING, HEALTH, MONITOR = "config.yaml", "training_metrics.json", "health.jsonl", "monitor.jsonl"
Entry = Mapping[str, Any]

_DESCRIBED = "dinov2-noise: this run"
_ROW = re.compile(r"  (\S.{0,14}?) {2,}(\S.*)")
_MEMORY = re.compile(r"max mem: (\d+)")
_STEP = "] Training  ["  # how a line of upstream's on a step begins
_GLOBAL_BATCH = re.compile(r"([\d,]+) = ")


@dataclass(frozen=True)
class StageSpan:
    """Iterations ``first`` to ``first + count - 1`` of a run. ``view``: in words; ``anchored``: a frozen teacher."""

    name: str
    first: int
    count: int
    view: str
    anchored: bool = False


@dataclass(frozen=True)
class Run:
    """What a run's folder tells.

    Attributes:
        name: for tables; unique on a page.
        folder: the run's.
        config: its ``config.yaml`` as plain data, interpolations resolved; empty where it cannot be read.
        training, health, monitor: lines of the three logs, by iteration.
        stages: of its curriculum; one stage for plain DINOv2, none without a config.
        problems: what could not be read, each naming its file.
        described: the log's block on the run, label → text. max_memory_mib: on a GPU, as logged. device: ``GPU`` or
            ``CPU``, as its steps are logged; empty where there is no log.
        arm: the name without the seed, see `with_arms`.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    training: Sequence[Entry] = ()
    health: Sequence[Entry] = ()
    monitor: Sequence[Entry] = ()
    stages: Sequence[StageSpan] = ()
    problems: Sequence[str] = ()
    described: Mapping[str, str] = field(default_factory=dict)
    max_memory_mib: int | None = None
    device: str = ""
    arm: str = ""

    def get(self, key: str, default: Any = None) -> Any:
        """The config's value of ``a.b.c``."""
        node: Any = self.config
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return default
            node = node[part]
        return node

    @property
    def config_file(self) -> Path:
        return self.folder / CONFIG

    @property
    def total_iterations(self) -> int | None:
        """Of the whole run, as configured."""
        return sum(stage.count for stage in self.stages) or None

    @property
    def last_iteration(self) -> int | None:
        """The last one that a log tells of."""
        ends = [int(entries[-1]["iteration"]) for entries in (self.training, self.health, self.monitor) if entries]
        return max(ends, default=None)

    @property
    def is_untrained(self) -> bool:
        """A network written out before its first step: a random one."""
        return not self.training and _is_random(self.folder)

    @cached_property
    def is_finished(self) -> bool:
        total = self.total_iterations
        if self.is_untrained or (self.folder / "model_final.pth").exists():
            return True
        if total is None:
            return False
        written = (self.folder / "eval" / f"training_{total - 1}").is_dir()
        return written or (self.last_iteration or -1) >= total - 1

    @property
    def state(self) -> str:
        """``finished``, or how far it is."""
        if self.is_untrained:
            return "not trained"
        if self.is_finished:
            return "finished"
        total = "" if self.total_iterations is None else f" of {self.total_iterations:,}"
        return f"unfinished: {0 if self.last_iteration is None else self.last_iteration + 1:,}{total} iterations"

    @property
    def images_per_step(self) -> int | None:
        """Over all processes, as the log says; the config's batch size where it says nothing."""
        logged = _GLOBAL_BATCH.match(self.described.get("images per step", ""))
        if logged:
            return int(logged[1].replace(",", ""))
        size = self.get("train.batch_size_per_gpu")
        return int(size) if isinstance(size, int) else None

    def stage_at(self, iteration: float) -> StageSpan | None:
        """The stage of an iteration; the last one past the end."""
        begun = [stage for stage in self.stages if stage.first <= iteration]
        return begun[-1] if begun else None

    @property
    def switches(self) -> list[tuple[int, str]]:
        """(first iteration, name) of each stage but the first."""
        return [(stage.first, stage.name) for stage in self.stages[1:]]


def is_run(folder: Path) -> bool:
    """Whether a training, not an evaluation, has written this folder."""
    logs = any((folder / name).is_file() for name in (TRAINING, HEALTH, MONITOR))
    return logs or ((folder / CONFIG).is_file() and any(folder.glob("eval/*/teacher_checkpoint.pth")))


def read_run(folder: Path, name: str) -> Run:
    """The run in ``folder``; never fails for what is in its files."""
    problems: list[str] = []
    config = _config(folder / CONFIG, problems)
    training, health, monitor = (read_entries(folder / file, problems) for file in (TRAINING, HEALTH, MONITOR))
    described, memory, device = _log(folder / "logs" / "log.txt")
    stages = _stages(folder / CONFIG, config, problems)
    if not training and not _is_random(folder):
        problems.append(f"{folder / TRAINING} has no entries: the training logged nothing yet")
    return Run(
        name, folder, config, training, health, monitor, stages, tuple(problems), described, memory, device, arm=name
    )


def _is_random(folder: Path) -> bool:
    return any(folder.glob("eval/manual_0/teacher_checkpoint.pth"))


def read_entries(path: Path, problems: list[str]) -> list[Entry]:
    """Lines of a log by iteration; where a resumed or restarted run goes back, all it had got beyond that place goes.

    A damaged line is passed over and named in ``problems``, but not a last one without its end: it is being written.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as cause:
        problems.append(f"cannot read {path}: {cause.strerror or cause}")
        return []
    found: dict[int, Entry] = {}
    bad: list[int] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is not None:
            if found and entry["iteration"] <= next(reversed(found)):
                found = {iteration: kept for iteration, kept in found.items() if iteration < entry["iteration"]}
            found[entry["iteration"]] = entry
        elif line.strip() and number < len(lines):
            bad.append(number)
    if bad:
        which = f"line {bad[0]}" if len(bad) == 1 else f"lines {', '.join(map(str, bad[:4]))}{' …' * (len(bad) > 4)}"
        problems.append(f"{path} {which}: not an entry with an iteration, left out")
    return list(found.values())


def _entry(line: str) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    iteration = entry.get("iteration") if isinstance(entry, dict) else None
    return entry if isinstance(iteration, int) and not isinstance(iteration, bool) else None


def _config(path: Path, problems: list[str]) -> Mapping[str, Any]:
    register_guard()
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        if isinstance(content, dict):
            return {str(key): value for key, value in content.items()}
        problems.append(f"{path} is not a config: its stages and settings are not shown")
    except FileNotFoundError:
        problems.append(f"{path} is missing: stages and settings are not shown")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as cause:
        problems.append(f"cannot read {path} ({' '.join(str(cause).split())[:160]}): stages and settings are not shown")
    return {}


def _stages(path: Path, config: Mapping[str, Any], problems: list[str]) -> list[StageSpan]:
    """Names and lengths, also of a curriculum with keys this version does not know."""
    try:
        length, epochs = int(config["train"]["OFFICIAL_EPOCH_LENGTH"]), int(config["optim"]["epochs"])
    except (KeyError, TypeError, ValueError):
        if config:
            problems.append(f"{path} has no train.OFFICIAL_EPOCH_LENGTH and optim.epochs: is it of DINOv2's training?")
        return []
    section = config.get("curriculum")
    if section is None:
        return [StageSpan("plain DINOv2", 0, epochs * length, "as the dataset has them")]
    try:
        parse_curriculum(section, total_epochs=epochs)
    except ConfigError as cause:
        problems.append(f"{path} is of another version of dinov2-noise ({cause}); shown as far as it is known")
    found: list[StageSpan] = []
    listed = section.get("stages") if isinstance(section, Mapping) else None
    for stage in listed if isinstance(listed, list) else []:
        if isinstance(stage, Mapping) and isinstance(stage.get("epochs"), int):
            first = found[-1].first + found[-1].count if found else 0
            name = str(stage.get("name", f"stage {len(found)}"))
            anchored = stage.get("anchor") is not None
            found.append(StageSpan(name, first, stage["epochs"] * length, _view(stage.get("view")), anchored))
    return found


def _view(view: Any) -> str:
    if isinstance(view, Mapping):
        return " and ".join(f"{name} {share}" for name, share in view.items())
    return str(view)


def _log(path: Path) -> tuple[Mapping[str, str], int | None, str]:
    """The block on the run, the most GPU memory in MiB, and the device, of the log's last megabyte and first one."""
    try:
        with path.open("rb") as stream:
            head = stream.read(2**20)
            end = stream.seek(0, 2)
            stream.seek(max(0, end - 2**20))
            tail = stream.read()
    except OSError:
        return {}, None, ""
    text = head.decode("utf-8", "replace")
    described: dict[str, str] = {}
    if _DESCRIBED in text:
        for line in text.rpartition(_DESCRIBED)[2].splitlines()[1:]:
            row = _ROW.match(line)
            if row:
                described[row[1]] = row[2]
            elif not line.startswith("  "):
                break
    steps = tail.decode("utf-8", "replace")
    memory = [int(found) for found in _MEMORY.findall(steps)]  # logged wherever there is a GPU
    device = "GPU" if memory else ("CPU" if _STEP in steps else "")
    return described, max(memory, default=None), device
