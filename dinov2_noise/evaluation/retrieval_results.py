"""What comes out of retrieval: one JSON file and three records per pair of views, and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dinov2_noise.errors import OutputFolderError
from dinov2_noise.evaluation.records import Record, versions
from dinov2_noise.evaluation.retrieval_cache import Features
from dinov2_noise.evaluation.retrieval_scores import PROTOCOLS, ProtocolScore, rank, score_all
from dinov2_noise.evaluation.retrieval_truth import GroundTruth
from dinov2_noise.files import differences, write_json


@dataclass(frozen=True)
class PairResult:
    """Scores of queries and a database, each shown in one way.

    Attributes:
        query, database: how; ``label`` names it. snr_db: means over the images, None without noise made here.
        scores: of the backbone, by protocol. colours: of colour histograms of the same images.
    """

    query: Mapping[str, Any]
    database: Mapping[str, Any]
    snr_db: Mapping[str, float | None]
    scores: Mapping[str, ProtocolScore]
    colours: Mapping[str, ProtocolScore]


def compare(
    truth: GroundTruth,
    query: tuple[Mapping[str, Any], Features],
    database: tuple[Mapping[str, Any], Features],
) -> PairResult:
    """Rank the database for all queries, by tokens and by colours, and score both."""
    by_tokens = rank(query[1].tokens, database[1].tokens)
    by_colours = rank(query[1].colours, database[1].colours)
    return PairResult(
        query[0],
        database[0],
        {"query": mean_snr_db(query[1]), "database": mean_snr_db(database[1])},
        score_all(by_tokens, truth.relevance),
        score_all(by_colours, truth.relevance),
    )


def pair_name(query: Mapping[str, Any], database: Mapping[str, Any]) -> str:
    """For files: the two labels."""
    return f"q-{query['label']}-db-{database['label']}"


def _settings(common: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the scores, of what `Evaluation` writes; paths of files that are told by their content do not."""
    parts = {f"model.{key}": value for key, value in common["model"].items()}
    for side in ("query", "database"):
        parts |= {f"{side}.{key}": value for key, value in common[side].items()}
    return {**parts, "ground_truth": common["ground_truth"]["hash"], "queries_cropped": common["queries_cropped"]}


def mean_snr_db(features: Features) -> float | None:
    """Mean over the images that have a finite one; None where none has."""
    finite = features.snr_db[np.isfinite(features.snr_db)]
    return float(finite.mean()) if len(finite) else None


@dataclass(frozen=True)
class Evaluation:
    """What all pairs have in common.

    Attributes:
        arm: name of the model. dataset: name of the set. cropped: whether queries were cropped to their boxes.
        seed: of the training run. details: config, weights, … for the records.
        chance: per protocol ``map`` and ``mp10`` of random rankings.
    """

    arm: str
    dataset: str
    truth: GroundTruth
    cropped: bool
    seed: int
    details: Mapping[str, Any]
    chance: Mapping[str, Mapping[str, float]]

    def check(self, query: Mapping[str, Any], database: Mapping[str, Any], output: Path) -> None:
        """Check that no result of something else has the name of this pair's.

        Raises:
            OutputFolderError: other weights, images or settings were evaluated under it.
        """
        file = self._file(f"{self.dataset}-{pair_name(query, database)}", output)
        try:
            there = _settings(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return  # there is none, or it is damaged
        differing = differences(there, _settings(self._common(query, database)))
        if differing:
            raise OutputFolderError(
                f"{file} already holds the result of something else:{differing}\nGive the model another --name, "
                "choose another --output, or delete that file."
            )

    def _file(self, stem: str, output: Path) -> Path:
        return output / "results" / f"{self.arm}-{stem}.json"

    def save(self, result: PairResult, output: Path) -> list[Path]:
        """Write ``results/<arm>-<set>-<pair>.json`` and the records; returns their paths."""
        stem = f"{self.dataset}-{pair_name(result.query, result.database)}"
        summary = self._file(stem, output)
        common = self._common(result.query, result.database)
        write_json(summary, {**common, **self._scores(result), "versions": versions()})
        paths = [summary]
        for protocol, found in result.scores.items():
            metric = f"retrieval_map_{protocol}"
            paths.append(output / "records" / f"{self.arm}-{metric}-{stem}.json")
            self._record(result, protocol, found, metric).save(paths[-1])
        return paths

    def _record(self, result: PairResult, protocol: str, found: ProtocolScore, metric: str) -> Record:
        floors = {"chance": self.chance[protocol]["map"], "colours": result.colours[protocol].map}
        return Record(
            arm=self.arm,
            metric=metric,
            value=found.map,
            n_images=found.n_queries,
            seed=self.seed,
            dataset=f"{self.dataset}-{pair_name(result.query, result.database)}",
            details={
                **self._common(result.query, result.database),
                "noise": result.query["label"],
                "snr_db": result.snr_db["query"],
                "mp_at": {str(k): value for k, value in found.precision.items()},
                "floors": floors,
            },
            versions=versions(),
            interval95=found.interval95,
        )

    def _common(self, query: Mapping[str, Any], database: Mapping[str, Any]) -> dict[str, Any]:
        truth = {"file": str(self.truth.path), "hash": self.truth.sha256}
        return {
            "arm": self.arm,
            "set": self.dataset,
            **self.details,
            "ground_truth": {**truth, "images": len(self.truth.images), "queries": len(self.truth.queries)},
            "queries_cropped": self.cropped,
            "query": dict(query),
            "database": dict(database),
        }

    def _scores(self, result: PairResult) -> dict[str, Any]:
        return {
            "snr_db": dict(result.snr_db),
            "scores": {protocol: _written(one) for protocol, one in result.scores.items()},
            "colours": {protocol: _written(one) for protocol, one in result.colours.items()},
            "chance": {protocol: dict(one) for protocol, one in self.chance.items()},
        }

    def table(self, results: Sequence[PairResult]) -> Table:
        """mAP with its interval, and mP@1, 5, 10, in percent: of the model, of colours, of chance."""
        table = Table(title=f"{self.arm}, {self.dataset}: mAP [95 % over queries], mP@1/5/10, in %")
        for heading in ("queries", "database", "features", *PROTOCOLS):
            table.add_column(heading)
        for result in results:
            labels = (str(result.query["label"]), str(result.database["label"]))
            table.add_row(*labels, self.arm, *(_cell(result.scores.get(protocol)) for protocol in PROTOCOLS))
            table.add_row("", "", "colours", *(_cell(result.colours.get(protocol)) for protocol in PROTOCOLS))
        floor = [f"{100 * self.chance[p]['map']:.1f}" if p in self.chance else "–" for p in PROTOCOLS]
        table.add_row("", "", "chance", *floor)
        return table


def _written(found: ProtocolScore) -> dict[str, Any]:
    return {**asdict(found), "n_queries": found.n_queries}


def _cell(found: ProtocolScore | None) -> str:
    if found is None:
        return "–"
    low, high = (100 * end for end in found.interval95)
    at = "/".join(f"{100 * value:.0f}" for value in found.precision.values())
    return f"{100 * found.map:.1f} [{low:.0f},{high:.0f}]\n{at}"
