"""What the page understands and says."""

import math

import pytest

from sfdfd.errors import InputError
from sfdfd.web.messages import (
    describe_diagnosis,
    describe_failure,
    describe_left_out,
    describe_prediction,
    settings_from_fields,
)


@pytest.mark.parametrize(("text", "unit", "metres"), [
    ("0.5 1 2", "m", [0.5, 1, 2]), ("0.5, 1, 2", "m", [0.5, 1, 2]), ("0,5 1,25", "m", [0.5, 1.25]),
    ("50;120", "cm", [0.5, 1.2]),
    ("1,2,4", "m", [1, 2, 4]), ("10 100", "inches", [0.254, 2.54]), ("2 0.5 0", "dioptres (1/m)", [0.5, 2, 1e9]),
    ("1 inf", "m", [1, 1e9]),
])  # fmt: skip
def test_distances_are_read_in_every_unit(text, unit, metres):
    assert settings_from_fields(text, unit, None, None, None)["focus_distances_m"] == pytest.approx(metres)


def test_empty_fields_are_left_out_and_wrong_ones_refused():
    assert settings_from_fields("  ", "m", None, 0, None) == {}
    assert settings_from_fields("", "m", 50, 8, 4.2) == pytest.approx(
        {"camera.focal_length_m": 0.05, "camera.f_number": 8, "camera.pixel_pitch_m": 4.2e-6}
    )
    for fields in (("near far", "m", None), ("1 2", "ells", None), ("1 -2", "m", None), ("1 2", "m", -3)):
        with pytest.raises(InputError):
            settings_from_fields(*fields, None, None)


FOUND = {
    "verdict": "good", "reasons": ["<b>blur</b> reaches 5 px"],
    "facts": {
        "focus_distances_m": [1.0, "inf"], "camera": {"focal_length_m": 0.05, "f_number": None, "pixel_pitch_m": None},
        "sources": {"focal_length_m": "EXIF"}, "missing": {"camera.f_number": "x"}, "camera_source": "estimated",
        "statement": "s", "alignment": {"slices": [{"file": "a.jpg"}, {"file": "<img src=x>|.jpg"}]},
    },
}  # fmt: skip


def test_text_of_files_is_escaped():
    shown = describe_diagnosis(FOUND)
    assert "| a.jpg | 1 m |" in shown and "infinity" in shown and "50 mm (EXIF)" in shown and "f-number" in shown
    assert "<img" not in shown and "<b>" not in shown and "Will it work? Good." in shown


def test_notes_of_the_commands_are_shown():
    notes = ["EXIF means k = 5.2, but the stack looks like 12.5", "<b>two</b>"]
    shown = describe_diagnosis({**FOUND, "facts": {**FOUND["facts"], "notes": notes}})
    facts = {
        "metric": False, "statement": "s", "refinement": None, "confidence": {"share_above_half": 0.5}, "notes": notes,
    }  # fmt: skip
    for text in (shown, describe_prediction(facts)):
        assert "**Note:** EXIF means k = 5.2, but the stack looks like 12.5" in text and "<b>" not in text
    assert "Note" not in describe_diagnosis(FOUND) + describe_prediction({**facts, "notes": []})


def test_failures_are_described_with_a_remedy():
    shown = describe_failure(InputError("file names: the nearest focus distance is <500> m"))
    assert "nearest focus distance is &#60;500&#62; m" in shown and "fill it in" in shown


@pytest.mark.parametrize(("rendered", "words"), [(30.0, "better"), (25.0, "careful")])
def test_the_left_out_check_has_a_verdict(rendered, words):
    figures = {"psnr_db": rendered, "nearest_slice_psnr_db": 27.0, "best_blend_psnr_db": 31.0}
    facts = {"left_out": [{"file": "a.jpg", **figures}], "left_out_mean": figures}
    assert words in describe_left_out(facts) and "27.0 dB" in describe_left_out(facts)
    assert "kept aside" in describe_left_out({"left_out": [], "left_out_mean": None}) and math.isfinite(rendered)
