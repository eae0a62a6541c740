"""The model card, ``README.md``: a YAML header as model hubs read it, then what a user of the features must know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dinov2_noise.evaluation.records import Record
from dinov2_noise.export.facts import Rows
from dinov2_noise.export.formats import Format
from dinov2_noise.export.parity import TOLERANCE, Parity
from dinov2_noise.export.preprocessing import Preprocessing


@dataclass(frozen=True)
class Card:
    """What stands in a card.

    Attributes:
        name: its title. kind: the format. is_trained: not a random network.
        network, data, training, versions: (label, value) each.
        stages: (name, epochs, images, what else). results: of evaluations. parity: of this export.
    """

    name: str
    kind: Format
    is_trained: bool
    network: Rows
    data: Rows
    training: Rows
    stages: Sequence[tuple[str, str, str, str]]
    results: Sequence[Record]
    parity: Sequence[Parity]
    preprocessing: Preprocessing
    versions: Rows

    def text(self) -> str:
        """Markdown; its one Python block runs as it is beside the files."""
        parts = [
            self._header(),
            f"# {self.name}",
            f"{self._kind()}. It turns an image into features: one class token and a token per patch.",
            f"## How to load it\n\nWith {self.kind.title}; the code stands beside the files and reads an `image.png`.",
            f"```python\n{self._loading()}```",
            self._preprocessing(),
            "## Network\n\n" + _list(self.network),
            "## Data\n\n" + _list(self.data),
            "## Training\n\n" + _list(self.training) + self._stages(),
            "## Results\n\n" + self._results(),
            "## Checked when it was exported\n\n" + self._parity(),
            "## Versions\n\n" + _list(self.versions),
            "## Licence\n\nTo be filled in by whoever publishes this: `license` in the header, and a sentence here. It "
            "depends on the images and on the weights that training began from.",
        ]
        return "\n\n".join(parts) + "\n"

    def _header(self) -> str:
        tags = ["dinov2", "self-supervised-learning", "noise-robustness", "feature-extraction"]
        lines = [
            "---",
            f"library_name: {self.kind.library}",
            "license: other",
            "license_name: to-be-filled-in",
            "pipeline_tag: image-feature-extraction",
            "tags:",
            *(f"- {tag}" for tag in tags),
            "---",
        ]
        return "\n".join(lines)

    def _kind(self) -> str:
        if not self.is_trained:
            return "A vision transformer of DINOv2's form with random weights, for comparisons: it was never trained"
        return "A vision transformer that DINOv2 trained without labels, with the dinov2-noise plug-in"

    def _loading(self) -> str:
        sizes = {"size": self.preprocessing.size_px, "resize": self.preprocessing.resize_px}
        return self.kind.loading.format(**sizes) if self.kind.library == "onnx" else self.kind.loading

    def _preprocessing(self) -> str:
        used = self.preprocessing
        text = (
            f"Images: shorter side to {used.resize_px} px (bicubic), centre crop of {used.size_px} px, values to "
            "[0, 1], then ImageNet's mean and standard deviation per channel."
        )
        if self.kind.library == "transformers":
            text += (
                " Where half a pixel has to be rounded, for one size of images in four, the processor's crop lies one "
                "pixel beside that of DINOv2's evaluations."
            )
        if used.values.kind != "dtype":
            text += (
                f" The training images had more than 8 bits, of which black and white were chosen by "
                f"`range={used.values.name}`: images of that kind must be brought to [0, 1] the same way first, as "
                "`dinov2_noise.load` does and other libraries do not."
            )
        return text

    def _stages(self) -> str:
        if not self.stages:
            return ""
        rows = [("stage", "epochs", "images", "also"), ("---",) * 4, *self.stages]
        return "\n\n" + "\n".join(f"| {' | '.join(_cell(text) for text in row)} |" for row in rows)

    def _results(self) -> str:
        if not self.results:
            return "None were found when this was exported."
        lines = ["| metric | value | 95 % interval | images | data |", "|---|---|---|---|---|"]
        for record in self.results:
            low, high = record.interval()
            lines.append(
                f"| {_cell(record.metric)} | {record.value:.3f} | {low:.3f} to {high:.3f} | {record.n_images:,} | "
                f"{_cell(_what(record))} |"
            )
        return "\n".join(lines) + "\n\nThe interval is over images; runs with other seeds spread as well."

    def _parity(self) -> str:
        lines = ["| images | class token | patch tokens | largest value |", "|---|---|---|---|"]
        for row in self.parity:
            lines.append(f"| {row.images} | {row.cls:.1e} | {row.patches:.1e} | {row.scale:.3g} |")
        text = (
            "Largest absolute difference between these files, read back, and the run's own network; allowed was "
            f"{TOLERANCE:g} of the largest value."
        )
        return f"{text}\n\n" + "\n".join(lines)


def _what(record: Record) -> str:
    """The data of a result, without the folders it lay in."""
    noise = record.details.get("noise")
    tokens = (token.partition("=") for token in record.dataset.split(":"))
    short = ":".join(f"{key}{equals}{value.rstrip('/').rpartition('/')[2]}" for key, equals, value in tokens)
    return f"{short}, noise {noise}" if noise else short


def _list(rows: Rows) -> str:
    return "\n".join(f"- {label}: {value}" for label, value in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
