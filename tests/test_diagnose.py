"""Diagnosis as a user runs it."""

import json

import numpy as np
import pytest

from tests.commands import inside


def test_experiments_are_diagnosed(tmp_path):
    inside("diagnose", "experiment=nyu_synth", "output_dir=d", cwd=tmp_path)
    facts = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert facts["of"] == "nyu_synth" and facts["verdict"] == "good" and len(facts["blur_radius_px"]) == 5


def test_an_experiment_is_diagnosed_with_the_optics_of_its_data_module(tmp_path):
    """Ten distances from each image's depth range, and not the five of another protocol; a resized camera."""
    done = inside("diagnose", "experiment=nyu_hybriddepth", "data.root=nowhere", "output_dir=h", cwd=tmp_path)
    facts = json.loads((tmp_path / "h" / "diagnosis.json").read_text())
    assert len(facts["focus_distances_m"]) == 10 and "each image's own depth range" in done.stdout
    for resize in (1.0, 0.5):
        inside("diagnose", "experiment=nyu_synth", f"data.resize={resize}", f"output_dir=r{resize}", cwd=tmp_path)
    whole, half = (json.loads((tmp_path / f"r{r}" / "diagnosis.json").read_text()) for r in (1.0, 0.5))
    assert half["facts"]["camera"]["pixel_pitch_m"] == pytest.approx(2 * whole["facts"]["camera"]["pixel_pitch_m"])
    np.testing.assert_allclose(half["blur_radius_px"], 0.5 * np.array(whole["blur_radius_px"]))
