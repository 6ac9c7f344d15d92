"""What a run logged, read back: also of files that are broken."""

import struct

import pytest

from sfdfd.errors import InputError
from sfdfd.evaluation.tables import read_rows
from sfdfd.io.run_record import logged
from sfdfd.runs.wandb_file import WandbRun, read_wandb


def test_broken_lines_of_a_log_are_left_out(tmp_path):
    assert logged(tmp_path, "loss") == []
    (tmp_path / "csv").mkdir()
    lines = [
        "step,loss,other",
        "1,0.5,1",
        ",0.4,1",
        "x,0.3,1",
        "2",
        "3,,1",
        "4,y,1",
        "5,nan\0,1,7,8",
        "inf,1,1",
        "6,0.1",
        "\xff",
    ]
    (tmp_path / "csv" / "metrics.csv").write_bytes("\n".join(lines).encode("latin-1"))
    found = logged(tmp_path, "loss")
    assert [step for step, _ in found] == [1, 5, 6] and found[2] == (6, 0.1)
    assert logged(tmp_path, "nonsense") == []


@pytest.mark.parametrize(
    "content", ["", "name,method\na", "name,other,x\na,b,1", "name,method,x\na,b,one", "name,method\na,b,c,d"]
)
def test_a_table_that_no_evaluation_wrote_is_said(content, tmp_path):
    (tmp_path / "metrics.csv").write_text(content)
    if content == "":
        assert read_rows(tmp_path / "metrics.csv") == []
    elif content != "name,method\na":
        with pytest.raises(InputError, match=r"metrics\.csv: not the table"):
            read_rows(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("name,method,x,y\na,b,1.5,\n")
    assert read_rows(tmp_path / "metrics.csv") == [{"name": "a", "method": "b", "x": 1.5, "y": None}]


@pytest.mark.parametrize("record", [b"\xff\xff\xff", b"\x0a\x80"])
def test_a_broken_record_of_a_wandb_file_is_said(record, tmp_path):
    file = tmp_path / "run-x.wandb"
    file.write_bytes(b":W&B\0\0\0" + struct.pack("<IHB", 0, len(record), 1) + record)
    with pytest.raises(InputError, match=r"run-x\.wandb: a broken file of W&B"):
        read_wandb(file)


def test_values_whose_step_is_none_are_left_out(tmp_path):
    history = [{"loss": 1.0, "_step": 3}, {"loss": 2.0, "_step": "x"}, {"loss": "y", "_step": 4}]
    run = WandbRun(tmp_path, history=[*history, {"bars": {"bins": []}, "trainer/global_step": []}])
    assert run.logged("loss") == [(3.0, 1.0)] and run.media("bars") == []
