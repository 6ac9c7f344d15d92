"""Reading what a run logged, also from broken files."""

import pytest

from sfdfd.errors import InputError
from sfdfd.evaluation.tables import read_rows
from sfdfd.io.run_record import logged


def test_broken_lines_of_a_log_are_skipped(tmp_path):
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
    points = logged(tmp_path, "loss")
    assert [step for step, _ in points] == [1, 5, 6] and points[2] == (6, 0.1)
    assert logged(tmp_path, "nonsense") == []


@pytest.mark.parametrize(
    "content", ["", "name,method\na", "name,other,x\na,b,1", "name,method,x\na,b,one", "name,method\na,b,c,d"]
)
def test_tables_of_other_programs_are_refused(content, tmp_path):
    (tmp_path / "metrics.csv").write_text(content)
    if content == "":
        assert read_rows(tmp_path / "metrics.csv") == []
    elif content != "name,method\na":
        with pytest.raises(InputError, match=r"metrics\.csv: not the table"):
            read_rows(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("name,method,x,y\na,b,1.5,\n")
    assert read_rows(tmp_path / "metrics.csv") == [{"name": "a", "method": "b", "x": 1.5, "y": None}]
