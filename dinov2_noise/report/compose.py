"""From folders to the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dinov2_noise.report.collect import Found, collect
from dinov2_noise.report.costs import costs_section
from dinov2_noise.report.curves import curves_section
from dinov2_noise.report.facts import facts_of, runs_section, summary_of, title_of
from dinov2_noise.report.features import Settings, feature_sections, without_features
from dinov2_noise.report.floor_rows import floors_of
from dinov2_noise.report.html import Missing, Page, Section, write_page
from dinov2_noise.report.results import results_section
from dinov2_noise.report.robustness import robustness_section
from dinov2_noise.report.seen import seen_section
from dinov2_noise.report.spread import groups_of
from dinov2_noise.report.sweep import cached_snr, points_of, sweep_section

NOTES = (
    "Intervals over images say how much an accuracy would vary with other images of the same kind; they say nothing of "
    "another training. The standard deviation over seeds says how much it varies from training to training.",
    "Chance is the accuracy of always answering the most common class; mean colour, or colour alone, that of the same "
    "kind of classifier on the mean colours of each image. What does not beat them has learned nothing of use there.",
    "Everything on this page was read from files of the folders named, and is in this one file: nothing is loaded from "
    "elsewhere.",
)


@dataclass(frozen=True)
class Request:
    """What is to be reported.

    Attributes:
        folders: of runs, recipes, demos, records or evaluations.
        title: None for one made of the names.
        pictures: whether images are read and networks run, which takes time.
        settings: of these pictures.
    """

    folders: Sequence[Path]
    title: str | None = None
    pictures: bool = True
    settings: Settings = field(default_factory=Settings)


def write(request: Request, output: Path, tell: Callable[[str], None]) -> Found:
    """Write the page to ``output``; returns what it was made of.

    Raises:
        MissingFolderError: a folder does not exist, or there is nothing to show.
        CheckpointError: records contradict each other.
        WriteError: the file cannot be written.
    """
    found = collect(request.folders)
    write_page(output, compose(found, request, tell))
    return found


def compose(found: Found, request: Request, tell: Callable[[str], None]) -> Page:
    """The page of what was found; sections that need images say so where there are none.

    Raises:
        CheckpointError: records contradict each other.
    """
    groups = groups_of(found.records)  # first: it may end in an error
    floors = floors_of(found.runs) if request.pictures else []
    sections = [runs_section(found.runs)]
    if request.pictures:
        tell("crops as the model saw them")
    sections.append(seen_section(found.runs) if request.pictures else _left_out("seen", "What the model saw"))
    tell("curves, tables and charts")
    sections += [
        results_section(groups, floors),
        curves_section(found.runs),
        sweep_section(points_of(found.records, found.summaries, cached_snr())),
        robustness_section(found.summaries),
    ]
    sections += feature_sections(found.runs, request.settings, tell) if request.pictures else without_features()
    sections.append(costs_section(found.runs))
    return Page(
        title=request.title or title_of(found),
        summary=summary_of(found, groups),
        facts=facts_of(found),
        sections=sections,
        notes=NOTES,
        problems=found.problems,
    )


def _left_out(key: str, title: str) -> Section:
    return Section(key, title, [Missing("Left out with --no-pictures.")])
