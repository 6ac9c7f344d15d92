"""The schedule is a pure function of shares and counts."""

import itertools
import math
from dataclasses import replace

import pytest

from sfdfd.refinement import schedule as schedules
from sfdfd.refinement.schedule import Budget, LevelProgress, Schedule, warmup
from sfdfd.refinement.settings import RefinementSettings

SETTINGS = RefinementSettings()


def simulate(schedule, step_s, steps=None):
    """Return the steps of each level and the seconds used, where ``step_s(step, level)`` is how long a step takes."""
    now, total, counts = 0.0, 0, []

    def used():
        return now / schedule.seconds if steps is None else total / steps

    for level in range(schedule.full + 1):
        if level and schedule.ends_with(level - 1):
            break
        if schedule.skips(level):
            continue
        progress = LevelProgress(used())
        while True:
            schedule = schedule.after_trial(level, progress, used())
            if schedule.level_share(level, progress, used()) >= 1:
                break
            seconds = step_s(total, level)
            now, total = now + seconds, total + 1
            progress = LevelProgress(progress.begun, progress.steps + 1, min(progress.fastest_step_s, seconds))
        counts.append(progress.steps)
    return counts, now


@pytest.mark.parametrize(
    ("quarter_s", "levels"), [(0.1, [30, 7]), (0.2, [17, 3]), (0.02, [30, 54]), (0.005, [30, 30, 37])]
)
def test_a_quarter_keeps_its_steps_where_half_the_size_is_the_last(quarter_s, levels):
    steps, seconds = simulate(Schedule(SETTINGS, 2, seconds=6.5), lambda _, level: quarter_s * 5.5**level)
    assert steps == levels
    assert 6.5 <= seconds < 6.5 + quarter_s * 5.5 ** (len(levels) - 1)


def test_a_slow_first_step_does_not_use_up_a_coarse_level():
    steps, _ = simulate(Schedule(SETTINGS, 2, seconds=6.5), lambda step, level: 4.0 if step == 0 else 0.05 * 5**level)
    assert steps == [3, 10]


@pytest.mark.parametrize(
    ("skipped", "quarter_s", "levels"),
    [(2, 0.01, [3, 22]), (2, 0.1, [3, 12]), (1, 0.005, [3, 30, 38]), (1, 0.1, [3, 12]), (0, 0.1, [30, 7])],
)
def test_a_skipped_coarsest_level_only_times_its_steps(skipped, quarter_s, levels):
    steps, seconds = simulate(Schedule(SETTINGS, 2, skipped, 6.5), lambda _, level: quarter_s * 5.5**level)
    assert steps == levels
    assert 6.5 <= seconds < 6.5 + quarter_s * 5.5**2


def test_the_fastest_step_decides_whether_the_full_size_is_begun():
    schedule = Schedule(replace(SETTINGS, coarse_share=0.15), 1, seconds=5.0)
    assert not schedule.after_trial(0, LevelProgress(0.0, 3, 0.02), 0.12).ends_with(0)
    assert schedule.after_trial(0, LevelProgress(0.0, 3, 0.1), 0.14).ends_with(
        0
    )  # ten steps take longer than what is left


def test_counted_steps_never_end_early_and_need_no_trial():
    steps, _ = simulate(Schedule(SETTINGS, 2), lambda *_: 1e9, steps=100)
    assert sum(steps) == 100 and len(steps) == 3
    assert simulate(Schedule(SETTINGS, 2, skipped=2), lambda *_: 1e9, steps=40)[0] == [40]


def test_stages_follow_shares():
    schedule = Schedule(SETTINGS, 1)
    first, last = LevelProgress(0.0, 0), LevelProgress(0.5, 20)
    assert schedule.stage(0, 0.0, first, has_draft=True).early == 1  # extra smoothness on the first level alone
    assert schedule.stage(0, 0.8, last, has_draft=True).early == 0
    assert schedule.stage(1, 0.0, first, has_draft=True).early == 0
    assert not schedule.stage(0, 0.0, first, has_draft=True).draft  # drafts at full size alone
    assert schedule.stage(1, 0.1, first, has_draft=True).draft
    assert not schedule.stage(1, 0.1, first, has_draft=False).draft
    assert not schedule.stage(1, 0.1, last, has_draft=True).draft  # after draft_steps
    assert not schedule.stage(1, 0.3, first, has_draft=True).draft  # after draft_share


def test_trust_in_the_start_fades_at_full_size_alone():
    schedule = Schedule(SETTINGS, 1)
    assert [schedule.start_trust(1, share) for share in (0.0, 0.9)] == [1.0, pytest.approx(0.1)]
    assert schedule.start_trust(0, 0.9) == 1.0
    assert replace(schedule, last=0).start_trust(0, 0.9) == 1.0  # half the size as the end has few steps


def test_learning_rates_fall_by_half_a_cosine_after_a_warm_up():
    schedule = Schedule(SETTINGS, 1)
    assert schedule.decay(1, 0.0) == 1 and schedule.decay(1, 1.0) == pytest.approx(0.04)
    assert schedule.decay(0, 1.0) == pytest.approx(0.2)
    assert schedule.decay(1, 0.5) == pytest.approx(0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert [warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_budget_of_seconds_keeps_time_for_the_end(monkeypatch):
    """No step begins that, with the end after it, would overrun by more than a step; shares never fall."""
    now = [0.0]
    monkeypatch.setattr(schedules.time, "monotonic", lambda: now[0])
    budget, shares = Budget(seconds=10.0, steps=None, spent_s=2.0), []
    step_s = itertools.chain([1.5, 0.5], itertools.repeat(1.0))
    while (share := budget.used()) < 1:
        shares.append(share)
        now[0] += next(step_s)
        budget.count_step()
    assert shares == sorted(shares) and budget.steps == 6
    assert now[0] == 6.0  # 2 s for the start, 6 s of steps, and 2 s for the end
    assert Budget(seconds=10.0, steps=4, spent_s=2.0).used() == 0
