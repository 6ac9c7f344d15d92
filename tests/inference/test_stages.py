"""Stages share a budget and say what they do."""

import time

import pytest

from sfdfd.inference import stages
from sfdfd.inference.stages import Stages


def test_stages_are_timed_and_reported(monkeypatch):
    monkeypatch.setattr(stages, "HEARTBEAT_S", 0.02)
    lines = []
    timed = Stages(lines.append, seconds=60)
    with timed.stage("reading"):
        time.sleep(0.09)
    with timed.stage("refining", heartbeat=False):
        time.sleep(0.05)
    assert list(timed.seconds_by_stage) == ["reading", "refining"]
    assert timed.seconds_by_stage["reading"] >= 0.09 and timed.seconds_by_stage["refining"] >= 0.05
    assert lines.count("[  0 of 60 s] reading") > 2 and lines.count("[  0 of 60 s] refining") == 1


def test_a_stage_that_fails_is_timed_and_ends_its_heartbeat(monkeypatch):
    monkeypatch.setattr(stages, "HEARTBEAT_S", 0.01)
    lines = []
    timed = Stages(lines.append)
    with pytest.raises(ValueError), timed.stage("reading"):
        raise ValueError
    count = len(lines)
    time.sleep(0.05)
    assert len(lines) == count == 1 and lines == ["[  0 s] reading"] and "reading" in timed.seconds_by_stage


@pytest.mark.parametrize(
    ("seconds", "gone_s", "wanted_s", "reserved_s", "expected"),
    [(None, 100, 10, 5, 10), (60, 20, 10, 5, 10), (60, 20, 60, 5, 35), (60, 54, 10, 5.5, 0), (60, 54, 0.4, 5.5, 0.4)],
)
def test_refinement_gets_what_the_budget_leaves(seconds, gone_s, wanted_s, reserved_s, expected):
    timed = Stages(seconds=seconds, begun_s=time.monotonic() - gone_s)
    assert timed.refinement_s(wanted_s, reserved_s) == pytest.approx(expected, abs=0.05)
