"""The demonstration: a training, a page with every method, no browser where there is no desktop."""

import re

import pytest

from tests.commands import SMALL, inside


@pytest.mark.slow
def test_a_few_steps_give_a_page(tmp_path):
    few = ",".join(f'"{one}"' for one in ("trainer.max_steps=2", *SMALL))
    done = inside("demo", f"train=[{few}]", "scenes=1", "refine.steps=1", "open=false", "output_dir=d", cwd=tmp_path)
    page = (tmp_path / "d" / "index.html").read_text()
    assert "The page: " in done.stdout and 'class="viewer"' in page
    for method in ("classical", "trained", "pretrained", "refined"):
        assert page.count(f"{method}</") >= 3, method  # its sentence, a picture and a row of the table
    figures = re.findall(r"<td>(0\.\d{3})</td>", page)
    assert len(figures) >= 4 and all(0 < float(one) < 1 for one in figures)


@pytest.mark.parametrize(("said", "part"), [("scenes=0", "scenes"), ("open=perhaps", "auto, true or false")])
def test_wrong_values_are_refused(tmp_path, said, part):
    assert part in inside("demo", said, cwd=tmp_path, expect=2).stderr
