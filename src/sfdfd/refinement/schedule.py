"""The schedule of a refinement (pure), and its budget (which asks the time)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from sfdfd.refinement.settings import RefinementSettings
from sfdfd.refinement.variables import Stage

__all__ = ["WARMUP_STEPS", "Budget", "LevelProgress", "Schedule", "warmup"]

MIN_DESCENT_SHARE = 1 / 3
"""Share of the seconds that is left for the descent, however long the start took."""
MIN_FULL_SIZE_STEPS, STEP_TIME_RATIO = 10, 5.0
"""The full size is begun where it can take that many steps, each this many times as long as one at half the size."""
TRIAL_STEPS = 3
"""Steps timed on a coarse level to estimate the cost of a step."""
CLOSING_STEPS = 2
"""Steps that take as long as the end of a refinement: energies of the last step and the start, rendering, confidence."""
WARMUP_STEPS = 8
"""Steps of a level until geometry moves at its full rate. Adam's first steps have the length of the rate whatever the
gradient, over all images of the pyramid at once."""


@dataclass(frozen=True)
class LevelProgress:
    """What one level has done so far.

    Attributes:
        begun: share of the whole budget that was used when the level began.
        steps: steps taken.
        fastest_step_s: shortest of them, in seconds.
    """

    begun: float = 0.0
    steps: int = 0
    fastest_step_s: float = math.inf


@dataclass(frozen=True)
class Schedule:
    """Which level runs when, and how each step of it is made: a pure function of shares and counts.

    Levels are numbered from the coarsest, 0, to the full size, ``full``. The first ``skipped`` blur too little to be of use.
    ``coarse_share`` of the budget goes to the other coarse levels in equal parts, at most ``coarse_steps`` steps each. In
    seconds, the full size is not begun where it could not take ``MIN_FULL_SIZE_STEPS``; half the size ends the refinement
    then. (A quarter as the end is too little: the answer is worse than a plane sweep at full size.)

    Attributes:
        settings: shares and numbers of steps.
        full: number of the full size, which is the number of coarse levels.
        skipped: coarse levels that are left out.
        seconds: budget of the descent; None where steps are counted.
        last: the level that ends the refinement.
    """

    settings: RefinementSettings
    full: int
    skipped: int = 0
    seconds: float | None = None
    last: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.last < 0:
            object.__setattr__(self, "last", self.full)

    @property
    def first(self) -> int:
        """The first level that does more than time its steps."""
        return min(self.skipped, self.last)

    def skips(self, level: int) -> bool:
        """Whether a level is left out. The coarsest runs in any case where it is needed to time a step."""
        return level < self.first and not (level == 0 and self.seconds is not None)

    def ends_with(self, level: int) -> bool:
        return self.last <= level

    def after_trial(self, level: int, progress: LevelProgress, used: float) -> Schedule:
        """Return the schedule once a coarse level has timed its steps: it may end at half the size.

        The fastest step counts, because a slow one may be another program's doing.
        """
        due = level < self.full == self.last and progress.steps == TRIAL_STEPS
        if self.seconds is None or not due:
            return self
        step_s = [STEP_TIME_RATIO**finer * progress.fastest_step_s for finer in range(self.full - level + 1)]
        coarse_s = self.settings.coarse_steps * sum(step_s[max(self.first - level, 0) : -1])
        coarse_end = min(self.settings.coarse_share, progress.begun + coarse_s / self.seconds)
        left_s = (1 - max(coarse_end, used)) * self.seconds
        return self if left_s >= MIN_FULL_SIZE_STEPS * step_s[-1] else replace(self, last=self.full - 1)

    def level_share(self, level: int, progress: LevelProgress, used: float) -> float:
        """Return how much of a level is done, 1 where it ends, when ``used`` of the whole budget is used."""
        if level < self.first:
            return progress.steps / TRIAL_STEPS
        if self.ends_with(level):
            return (used - progress.begun) / (1 - progress.begun) if used < 1 else 1.0
        end = self.settings.coarse_share * (level + 1 - self.first) / (self.last - self.first)
        share = (used - progress.begun) / (end - progress.begun) if used < end else 1.0
        if self.seconds is not None and progress.steps < TRIAL_STEPS and used < 1:
            share = min(share, progress.steps / TRIAL_STEPS)
        return max(share, progress.steps / max(self.settings.coarse_steps, 1))

    def stage(self, level: int, share: float, progress: LevelProgress, has_draft: bool) -> Stage:
        """Return what the energy's terms are told of a step."""
        settings, ends = self.settings, self.ends_with(level)
        early = max(0.0, 1 - share / 0.8) if level == self.first and not ends else 0.0
        in_draft = share < settings.draft_share and progress.steps < settings.draft_steps
        return Stage(early, self.start_trust(level, share), has_draft and level == self.full and in_draft)

    def start_trust(self, level: int, share: float) -> float:
        """Return the share of the trust in the start; it fades over the full size."""
        return 1 - share if level == self.full and self.ends_with(level) else 1.0

    def decay(self, level: int, share: float) -> float:
        """Return the factor on the learning rates at a share of a level: half a cosine."""
        floor = 0.04 if self.ends_with(level) else 0.2
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def warmup(step: int, warmup_steps: int) -> float:
    """Return the factor on a learning rate at a step of a level, counted from 0: a linear rise to 1."""
    return min(1.0, (step + 1) / warmup_steps)


class Budget:
    """Seconds or steps that are used so far.

    Args:
        seconds: for start and descent.
        steps: where given, steps count and seconds do not.
        spent_s: seconds that the start took.
    """

    def __init__(self, seconds: float, steps: int | None, spent_s: float) -> None:
        self.max_steps, self.spent_s = steps, spent_s
        self.descent_s = max(seconds - spent_s, MIN_DESCENT_SHARE * seconds)
        self.steps, self.begun_s, self._share = 0, time.monotonic(), 0.0
        self.begin_level()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning of the start."""
        return time.monotonic() - self.begun_s + self.spent_s

    def used(self) -> float:
        """Return the share that is used, 1 or more at the end; of seconds, what the end will take counts as used."""
        if self.max_steps is not None:
            return self.steps / self.max_steps
        end_s = time.monotonic() - self.begun_s + CLOSING_STEPS * self._last_step_s
        self._share = max(self._share, end_s / self.descent_s)  # a faster step does not turn it back
        return self._share

    def begin_level(self) -> None:
        self._step_begun_s, self._last_step_s = time.monotonic(), 0.0
        self.progress = LevelProgress(self.used())

    def count_step(self) -> None:
        self.steps += 1
        now = time.monotonic()
        self._last_step_s = now - self._step_begun_s
        fastest = min(self.progress.fastest_step_s, self._last_step_s)
        self.progress = replace(self.progress, steps=self.progress.steps + 1, fastest_step_s=fastest)
        self._step_begun_s = now
