"""What the pages name exists, and what exists is named."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from sfdfd.data.sources import FIRST, SOURCES
from sfdfd.runs.command import CONF_DIR

ROOT = Path(__file__).resolve().parents[1]


DATASETS, CONFIGURATION, OWN_STACK, PHOTOGRAPHERS = (
    (ROOT / "docs" / name).read_text()
    for name in ("datasets.md", "configuration.md", "your_own_stack.md", "photographers.md")
)


SETS = runpy.run_path(str(ROOT / "docs" / "figures" / "sets.py"))
"""What mkdocs adds to the page of data sets."""


@pytest.mark.parametrize(
    ("page", "least"),
    [(DATASETS, 10), (OWN_STACK, 8), (PHOTOGRAPHERS, 9)],
    ids=["datasets", "formats", "photographers"],
)
def test_the_tests_that_a_page_names_exist(page, least):
    existing = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > least and named <= existing, named - existing


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_has_its_section(name):
    assert all(fact in SETS["with_sections"](DATASETS) for fact in facts_of(SOURCES[name]))
    assert name not in FIRST or all(fact in DATASETS for fact in facts_of(SOURCES[name]))


def facts_of(source):
    return source.licence, source.home, source.citation, source.uncertain, source.size, f"`data={source.name}`"


def test_a_source_that_the_page_does_not_name_says_the_same_of_itself(monkeypatch):
    assert SETS["with_sections"](DATASETS).startswith(DATASETS)
    another = replace(SOURCES["zedd"], name="another", licence="theirs", home="https://another.org")
    monkeypatch.setitem(SOURCES, "another", another)
    added = SETS["with_sections"](DATASETS).removeprefix(DATASETS)
    assert all(fact in added for fact in facts_of(another)) and "`ZEDD.zip`, fetched by hand" in added


FIGURES = (ROOT / "docs" / "figures" / "make.py").read_text()
GROUPS = ["experiment", "data", "network", "loss", "optimizer", "trainer", "logger", "optics"]


@pytest.mark.parametrize("group", GROUPS)
def test_the_options_of_a_group_are_explained(group):
    """What the table names exists; experiments and data sets, which carry figures, are all named (published sets that came
    later on their own page)."""
    row = next(line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{group}` |"))
    named = set(re.findall(r"`([a-z]\w+)`", row.split("|")[2]))
    names = {file.stem for file in (CONF_DIR / group).glob("*.yaml")}
    assert named & names
    if group in ("experiment", "data"):
        missing = {name.removesuffix("_paper") for name in names} - named - ({*SOURCES} - {*FIRST})
        assert not missing, missing
    if group == "data":
        page = SETS["with_sections"](DATASETS)
        assert not [name for name in names if f"`{name}`" not in page and f"`data={name}`" not in page]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_and_pictures_of_the_pages_exist(page):
    """Figures that ``make docs`` draws need not be drawn yet."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "generated/" in target:
            assert f'"{Path(target).name.split(".")[0]}": ' in FIGURES, target
        elif "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_names_experiments_and_data_that_exist():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"experiment=(\w+)", readme))
    assert named and all((CONF_DIR / "experiment" / f"{name}.yaml").is_file() for name in named)
    assert all((CONF_DIR / "data" / f"{name}.yaml").is_file() for name in re.findall(r"(?<![.\w])data=(\w+)", readme))
