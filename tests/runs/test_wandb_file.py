"""W&B's run files: broken records and values."""

import struct

import pytest

from sfdfd.errors import InputError
from sfdfd.runs.wandb_file import WandbRun, read_wandb


@pytest.mark.parametrize("record", [b"\xff\xff\xff", b"\x0a\x80"])
def test_broken_records_are_refused(record, tmp_path):
    file = tmp_path / "run-x.wandb"
    file.write_bytes(b":W&B\0\0\0" + struct.pack("<IHB", 0, len(record), 1) + record)
    with pytest.raises(InputError, match=r"run-x\.wandb: a broken file of W&B"):
        read_wandb(file)


def test_values_without_a_numeric_step_are_skipped(tmp_path):
    history = [{"loss": 1.0, "_step": 3}, {"loss": 2.0, "_step": "x"}, {"loss": "y", "_step": 4}]
    run = WandbRun(tmp_path, history=[*history, {"bars": {"bins": []}, "trainer/global_step": []}])
    assert run.logged("loss") == [(3.0, 1.0)] and run.media("bars") == []
