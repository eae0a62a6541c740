"""How much of a run's time measuring may take."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Budget:
    """Says whether a measurement may be made now.

    It may if all measuring so far and one more of the last one's length take at most ``max_share`` of the time since
    training began. The first is always allowed, since before it nobody knows its length. What is measured never
    shrinks: a point of the curve is left out, or is comparable with the others.

    Attributes:
        max_share: above 0, up to 1, which allows all.
        spent_s: seconds of measuring so far, reading the images included.
    """

    max_share: float
    spent_s: float = 0.0
    _last_s: float | None = field(default=None, init=False)

    def allows(self, elapsed_s: float) -> bool:
        """Whether to measure ``elapsed_s`` seconds after training began, measuring included."""
        if self._last_s is None or self.max_share >= 1:
            return True
        return self.spent_s + self._last_s <= self.max_share * elapsed_s

    def spend(self, seconds: float) -> None:
        """A measurement took ``seconds``."""
        self.spent_s += seconds
        self._last_s = seconds

    def next_s(self) -> float:
        """How long after the beginning of training the next one is allowed."""
        return (self.spent_s + (self._last_s or 0.0)) / self.max_share
