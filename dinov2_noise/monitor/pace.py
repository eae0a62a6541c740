"""How fast a run goes, what it waits for, and when it will end, from the times of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from dinov2_noise.curriculum.stages import Curriculum, Stage


def step_cost(stage: Stage, n_local_crops: int) -> float:
    """Arithmetic of one step, in arbitrary units: the pixels that backbones see, three times where gradients flow.

    The student sees all crops, forward and backward; the EMA teacher, and in anchored stages the frozen one, the
    global ones. Heads and the square in attention are left out: this compares stages of one run.
    """
    seen = 2 * stage.crops.global_px**2
    return 3 * (seen + n_local_crops * stage.crops.local_px**2) + seen * (1 + (stage.anchor is not None))


@dataclass
class Pace:
    """Adds up the times of steps.

    Attributes:
        curriculum: of the run. n_local_crops: ``crops.local_crops_number``. images_per_step: over all processes.
    """

    curriculum: Curriculum
    n_local_crops: int
    images_per_step: int

    def __post_init__(self) -> None:
        self._stage: Stage | None = None
        self._in_stage = (0, 0.0)
        self._since_line = (0, 0.0, 0.0)

    def add(self, iteration: int, step_s: float, waited_s: float) -> None:
        """A step took ``step_s`` in all, of which ``waited_s`` for its images; without measuring."""
        stage = self.curriculum.stage_at(iteration)
        if stage is not self._stage:
            self._stage, self._in_stage = stage, (0, 0.0)
        steps, seconds = self._in_stage
        self._in_stage = (steps + 1, seconds + step_s)
        steps, seconds, waited = self._since_line
        self._since_line = (steps + 1, seconds + step_s, waited + waited_s)

    def take(self) -> tuple[float | None, float | None]:
        """Images per second, and the share of the time spent waiting for images, since the last call."""
        steps, seconds, waited = self._since_line
        self._since_line = (0, 0.0, 0.0)
        if steps == 0 or seconds <= 0:
            return None, None
        return steps * self.images_per_step / seconds, waited / seconds

    def left_s(self, iteration: int) -> float | None:
        """Seconds to the end of the run after ``iteration``: the present stage's mean, other stages by `step_cost`."""
        steps, seconds = self._in_stage
        if self._stage is None or steps == 0:
            return None
        present = seconds / steps / step_cost(self._stage, self.n_local_crops)
        left = 0.0
        for stage in self.curriculum.stages[self._stage.index :]:
            first = max(stage.first_iteration, iteration + 1)
            n_left = stage.first_iteration + stage.n_iterations - first
            left += max(n_left, 0) * present * step_cost(stage, self.n_local_crops)
        return left
