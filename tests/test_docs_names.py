"""Every command, configuration key, file, test and symbol that a page names exists."""

from pathlib import Path

import pytest

from tests.documented_names import CHECKS, ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
WRONG = {
    "commands": [
        "`python -m sfdfd.forecast stack=DIR`",
        "```bash\npython -m sfdfd.train experiment=procedural trainer.max_stepz=3\n```",
        "```bash\npython -m sfdfd.train experiment=procedurall\n```",
        "`make coffee`",
        "`python benchmarks/none.py`",
    ],
    "keys": ["`data.near_maskk_m`", "`refine.secondz=20`", "`holdoutt=[1]`", "`optics.sigma`", "`reflow.*=1`"],
    "files": ["`optics/psff.py`", "`tests/optics/none.py`", "`benchmarks/results/none.json`", "`stacck.py`"],
    "tests": ["`test_nothing_of_the_kind`", "`test_docs.py::test_nothing`", "`tests/test_nothing_at_all.py`"],
    "symbols": [
        "`sfdfd.optics.Kamera`",
        "`FocalStack.colate`",
        "`FocalStak`",
        "`render_focal_stak(aif)`",
        "```python\nfrom sfdfd import Kamera\n```",
    ],
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(Path(page).relative_to(ROOT)))
@pytest.mark.parametrize("kind", CHECKS)
def test_what_a_page_names_exists(page, kind):
    assert CHECKS[kind](page.read_text()) == []


@pytest.mark.parametrize("kind", CHECKS)
def test_what_does_not_exist_is_found(kind):
    """Each kind is broken on purpose."""
    for text in WRONG[kind]:
        assert CHECKS[kind](text), text
