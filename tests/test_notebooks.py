"""The notebooks: stored without output, each opens with its question and runs from top to bottom."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import sfdfd

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST_DEF = 4
"""Lines. What is longer belongs into the package."""

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def run_py(folder, *names):
    """``run.py`` as a command. Under pytest's own variable a kernel would not catch what its commands print."""
    env = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    command = [sys.executable, folder / "run.py", *names]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_there_are_six():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@each
def test_it_is_valid_and_stored_without_output(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None and cell.outputs == [], cell.source


@each
def test_it_opens_with_its_question_and_ends_with_what_to_read_next(path):
    cells = read(path).cells
    first, last = cells[0], cells[-1]
    assert first.cell_type == last.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"^\*\*The question: [^\n]+\?\*\*$", first.source, re.MULTILINE), first.source
    assert "## Read next" in last.source and "../docs/" in last.source


@each
def test_its_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#\s]+)", cell.source):
                assert "://" in target or (FOLDER / target).exists(), target


@each
def test_it_calls_the_package_and_holds_no_logic_of_its_own(path):
    tree = ast.parse("\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert any(name.split(".")[0] == "sfdfd" for name in imported if name)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.ClassDef), node.name
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_DEF, node.name
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_the_page_has_every_question():
    text = (ROOT / "docs" / "tutorials" / "notebooks.md").read_text()
    for path in NOTEBOOKS:
        question = re.search(r"The question: ([^\n]+\?)\*\*", read(path).cells[0].source).group(1)
        assert path.name in text and question[1:] in text, (path.name, question)


def test_an_error_in_a_cell_ends_the_run(tmp_path):
    """With the cell's own error; and what is not there is said."""
    (tmp_path / "run.py").write_text((FOLDER / "run.py").read_text())
    command = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'sfdfd.diagnose', 'stack=gone'], check=True)"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(command)]), tmp_path / "broken.ipynb")
    done = run_py(tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("broken.ipynb: failed"), done.stderr
    assert "CalledProcessError" in done.stderr and "gone: no such folder" in done.stderr, (
        done.stderr
    )  # and the command's own words
    done = run_py(tmp_path, "nowhere")
    assert done.returncode == 1 and "no such notebook: nowhere; there are broken" in done.stderr, done.stderr


def test_kernels_are_of_this_interpreter_and_this_package(tmp_path):
    (tmp_path / "run.py").write_text((FOLDER / "run.py").read_text())
    same = f"import sys, sfdfd\nassert (sys.executable, sfdfd.__file__) == {(sys.executable, sfdfd.__file__)!r}"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(same)]), tmp_path / "same.ipynb")
    done = run_py(tmp_path, "same")
    assert done.returncode == 0 and done.stdout.startswith("same.ipynb: "), done.stderr


@pytest.mark.slow
@each
def test_it_runs(path):
    """As ``make notebooks`` runs it; nothing is left in the repository."""
    before = {file: file.stat().st_mtime_ns for file in FOLDER.rglob("*")}
    done = run_py(FOLDER, path.stem)
    assert done.returncode == 0 and path.name in done.stdout, done.stdout + done.stderr
    assert {file: file.stat().st_mtime_ns for file in FOLDER.rglob("*")} == before
