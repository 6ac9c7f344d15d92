"""What the pages name exists, and what exists is named."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml

from sfdfd.datasets.sources import FIRST, SOURCES
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.runs.command import CONF_DIR

ROOT = Path(__file__).resolve().parents[1]


DATASETS, CONFIGURATION, FORMATS, OUTPUTS = (
    (ROOT / "docs" / name).read_text()
    for name in ("reference/datasets.md", "reference/configuration.md", "reference/formats.md", "howto/outputs.md")
)


SETS = runpy.run_path(str(ROOT / "docs" / "figures" / "sets.py"))
"""What mkdocs adds to the page of data sets."""


@pytest.mark.parametrize(
    ("page", "least"),
    [(DATASETS, 10), (FORMATS, 8), (OUTPUTS, 9)],
    ids=["datasets", "formats", "outputs"],
)
def test_the_tests_that_a_page_names_exist(page, least):
    existing = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > least and named <= existing, named - existing


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_the_files_of_tests_and_the_tests_in_them_that_a_page_names_exist(page):
    """NAME stands for what somebody adds; what the diffs of a page add is not there yet."""
    text = page.read_text()
    added = set(re.findall(r"^\+\+\+ (\S+)", text, re.MULTILINE))
    for file in set(re.findall(r"tests/[\w/]+\.py", text)) - added:
        assert "NAME" in file or (ROOT / file).is_file(), file
    for file, name in re.findall(r"\b(test_\w+\.py)::(test_\w+)", text):
        assert any(f"def {name}" in path.read_text() for path in (ROOT / "tests").rglob(file)), f"{file}::{name}"


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


def test_a_stack_with_truth_is_written_as_the_page_says(tmp_path):
    page = (ROOT / "docs" / "howto" / "own_data_set.md").read_text()
    (described,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    depth_m, aif = np.linspace(1, 4, 384, dtype=np.float32).reshape(16, 24), np.full((16, 24, 3), 77, np.uint8)
    depth_m[0, 0] = 0
    truth = yaml.safe_load(described)["truth"]
    (tmp_path / truth["aif"]).parent.mkdir()
    (tmp_path / "stack.yaml").write_text(described)
    np.save(tmp_path / truth["depth_m"], depth_m)
    iio.imwrite(tmp_path / truth["aif"], aif)
    for index in range(3):
        iio.imwrite(tmp_path / f"{index}.png", np.random.default_rng(index).integers(0, 255, aif.shape, dtype=np.uint8))
    stack = read_stack(tmp_path)
    assert stack.images.shape == (1, 3, 3, 16, 24) and stack.camera[0].f_number == 8.0
    assert stack.valid.sum() == 383 and float(stack.depth_m[0, -1, -1]) == 4
    assert torch.allclose(stack.aif, torch.tensor(77 / 255))


@pytest.mark.parametrize(("folder", "most"), [("howto", 600), ("explanation", 1500)])
def test_pages_are_short(folder, most):
    """Words outside of blocks of code."""
    for page in sorted((ROOT / "docs" / folder).glob("*.md")):
        words = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).split()
        assert len(words) <= most, f"{page.name}: {len(words)} words"


def test_the_navigation_has_at_most_seven_entries():
    entries = re.findall(r"^  - ", (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1], re.MULTILINE)
    assert len(entries) <= 7


COMMITTED = [
    path
    for part in ("docs", "research", "benchmarks", "conf", "src", ".github", "README.md")
    for path in sorted((ROOT / part).rglob("*") if (ROOT / part).is_dir() else [ROOT / part])
    if path.suffix in {".md", ".py", ".yaml", ".yml", ".json", ".toml", ".js", ".css", ".html", ".txt"}
    and not {"generated", "__pycache__"} & set(path.parts)
]
COMMIT = re.compile(r"(?<![\w.#-])(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7,40}(?![\w.-])")
"""A short or whole git id: digits and letters, no part of a number, a colour or a name."""


def test_no_page_shows_a_machine_a_private_folder_or_a_commit():
    for path in COMMITTED:
        text, name = path.read_text(), str(path.relative_to(ROOT))
        for private in ("/work/", "/tmp/wt", "../shared"):
            assert private not in text, f"{name}: {private}"
        found = [line for line in text.splitlines() if COMMIT.search(line) and "fromhex" not in line]
        assert not found, f"{name}: {found[0][:200]}"
        if name.startswith("docs/"):
            assert "(asked" not in text and "asked:" not in text, name


def test_the_paths_below_research_and_benchmarks_that_a_page_names_exist():
    for page in [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "research").glob("*.md")), ROOT / "README.md"]:
        for named in re.findall(r"`((?:research|benchmarks|docs)/[\w/.-]+\.\w+)`", page.read_text()):
            assert (ROOT / named).exists(), f"{page.name}: {named}"
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if page.parent.name == "research" else ():
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tables_of_readme_and_results_are_what_the_benchmarks_left(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    page, readme = (ROOT / "docs" / "reference" / "results.md").read_text(), (ROOT / "README.md").read_text()
    assert tables["summary"]() in readme
    for name in ("path_traced", "left_out", "nyu", "published", "robustness", "speed"):
        assert tables[name]() in page, f"make results: {name}"
