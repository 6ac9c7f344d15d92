"""What the pages name exists, and what exists is named."""

import re
from pathlib import Path

import pytest

from sfdfd.data.sources import SOURCES
from sfdfd.runs.command import CONF_DIR

ROOT = Path(__file__).resolve().parents[1]


DATASETS, CONFIGURATION, OWN_STACK, PHOTOGRAPHERS = (
    (ROOT / "docs" / name).read_text()
    for name in ("datasets.md", "configuration.md", "your_own_stack.md", "photographers.md")
)


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
    source = SOURCES[name]
    for fact in (source.licence, source.home, source.citation, source.uncertain, source.size, f"`data={name}`"):
        assert fact in DATASETS, fact


GROUPS = ["experiment", "data", "network", "loss", "optimizer", "trainer", "logger", "optics"]


@pytest.mark.parametrize("group", GROUPS)
def test_the_options_of_a_group_are_explained(group):
    """What the table names exists; experiments and data sets, which carry figures, are all named."""
    row = next(line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{group}` |"))
    named = set(re.findall(r"`([a-z]\w+)`", row.split("|")[2]))
    names = {file.stem for file in (CONF_DIR / group).glob("*.yaml")}
    assert named & names
    if group in ("experiment", "data"):
        missing = {name.removesuffix("_paper") for name in names} - named
        assert not missing, missing
    if group == "data":
        assert not [name for name in names if f"`{name}`" not in DATASETS and f"`data={name}`" not in DATASETS]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_and_pictures_of_the_pages_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_names_experiments_and_data_that_exist():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"experiment=(\w+)", readme))
    assert named and all((CONF_DIR / "experiment" / f"{name}.yaml").is_file() for name in named)
    assert all((CONF_DIR / "data" / f"{name}.yaml").is_file() for name in re.findall(r"(?<![.\w])data=(\w+)", readme))
