"""Which outputs are asked for."""

import pytest

from sfdfd.errors import InputError
from sfdfd.report.outputs import OUTPUTS, parse_outputs


def test_outputs_are_sorted_and_all_means_all():
    assert parse_outputs(None) == () == parse_outputs([])
    assert parse_outputs(["refocus", "exr", "exr"]) == ("exr", "refocus")
    assert parse_outputs("portrait") == ("portrait",)
    assert parse_outputs("all") == tuple(OUTPUTS)
    assert set(OUTPUTS) == {"exr", "portrait", "glb", "slice_index", "refocus", "confidence", "defocus_px"}


@pytest.mark.parametrize("value", ["everything", ["exr", "obj"], 3, {"exr": 1}, [["exr"]], True])
def test_unknown_outputs_are_refused(value):
    with pytest.raises(InputError, match=r"outputs: expected all, or a list of exr, .*got"):
        parse_outputs(value)
