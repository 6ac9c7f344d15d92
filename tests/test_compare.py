"""The table of runs does without what is broken."""

import csv

import imageio.v3 as iio
import numpy as np
import pytest

from tests.commands import inside


@pytest.mark.parametrize("overrides", [
    "- seed=1\n- 5\n- [a=1]\n- {a: 1}\n- ~\n- x\n", "seed: 1", "5", "- [", "- !!python/object:x y", "\udcff", "- 2020-13-45",
])  # fmt: skip
def test_broken_records_of_a_run_do_not_end_it(overrides, tmp_path):
    for name, error in (("a", "1"), ("b", "2")):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_bytes(b"- seed=2\n- lr=1\n")
        (tmp_path / name / "metrics.json").write_text(f'{{"samples": {error}}}')
        (tmp_path / name / "pictures").mkdir()
        iio.imwrite(tmp_path / name / "pictures" / "network_0.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "a" / ".hydra" / "overrides.yaml").write_bytes(overrides.encode("utf-8", "surrogateescape"))
    picture = tmp_path / "a" / "pictures" / "network_0.png"
    picture.write_bytes(picture.read_bytes()[:50])
    inside("compare", ".", cwd=tmp_path)
    with (tmp_path / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1" if overrides.startswith("- seed") else "", "2"]
    assert (tmp_path / "comparison.html").read_text().count("<img") == 1
