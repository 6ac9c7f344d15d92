"""The index of many predictions does without what is broken."""

import re
from urllib.parse import unquote

import imageio.v3 as iio
import numpy as np
import pytest

from sfdfd.report import prediction_index as index
from sfdfd.report.prediction_index import is_whole, table, write_index

ROW = {
    "name": "a", "status": "done", "seconds": 1.5, "error": None,
    "facts": {"slices": 3, "metric": True, "depth": {"min": 1.0, "max": 2.0, "median": 1.5}, "left_out_psnr_db": 30.0},
}  # fmt: skip


@pytest.mark.parametrize("change", [
    {"facts": None}, {"facts": 5}, {"facts": {}}, {"seconds": "x"}, {"seconds": [1]},
    *({"facts": {**ROW["facts"], key: "x"}} for key in ("depth", "left_out_psnr_db")),
    *({"facts": {k: v for k, v in ROW["facts"].items() if k != key}} for key in ROW["facts"]),
])  # fmt: skip
def test_rows_without_the_table_columns_are_not_whole(change):
    assert is_whole(ROW) and "1 to 2 m" in table([ROW]) and not is_whole({**ROW, **change})


def test_a_broken_picture_is_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("aif.png", "depth.png"):
        iio.imwrite(tmp_path / "a" / name, np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "a" / "aif.png").write_bytes((tmp_path / "a" / "aif.png").read_bytes()[:50])
    write_index(tmp_path, "title", [ROW])
    assert (tmp_path / "index.html").read_text().count("<img") == 1


def test_a_picture_is_decoded_once_however_often_the_page_is_written(tmp_path, monkeypatch):
    decoded = []
    read = index.read_image
    monkeypatch.setattr(index, "read_image", lambda path: decoded.append(path.parent.name) or read(path))
    rows = []
    for name in ("a", "b ä", "c/d"):
        (tmp_path / name).mkdir(parents=True)
        for file in ("aif.png", "depth.png"):
            iio.imwrite(tmp_path / name / file, np.zeros((20, 700, 3), np.uint8))
        rows.append({**ROW, "name": name})
    known = {}
    for count in (1, 2, 3):
        write_index(tmp_path, "title", rows[:count], known)
    write_index(tmp_path, "title", rows)  # of a later call, which knows nothing
    assert decoded == ["a", "a", "b ä", "b ä", "d", "d"]
    page = (tmp_path / "index.html").read_text()
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == 6
    for source in sources:
        assert max(iio.imread(tmp_path / unquote(source)).shape[:2]) == 320
    iio.imwrite(tmp_path / "a" / "aif.png", np.full((20, 30, 3), 255, np.uint8))  # predicted again
    write_index(tmp_path, "title", [{**rows[0], "seconds": 2.5}, *rows[1:]], known)
    assert decoded[6:] == ["a"] and iio.imread(tmp_path / "a" / "thumbnails" / "aif.jpg").min() > 250
