"""The worked examples of the how-to pages apply to the code as it is, and pass the tests that they name."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.worked_examples import ROOT, applied, diffs

DIFFS = diffs()
TESTS = {
    "add_a_loss, A loss term": ["tests/measures/test_losses.py", "-k", "curvature"],
    "add_a_loss, A network": ["tests/networks/test_networks.py", "-k", "shallow"],
    "add_optics, A PSF": ["tests/optics/test_laws.py", "tests/optics/test_psf.py", "-k", "cosine"],
    "add_optics, A renderer": ["tests/optics/test_laws.py", "-k", "supersampled"],
    "add_optics, A camera preset": ["tests/test_configs.py"],
    "add_evaluation, A method": ["tests/inference/test_methods.py", "-k", "blurred"],
    "add_evaluation, A metric": ["tests/measures/test_metrics.py"],
    "add_evaluation, An output of predict": ["tests/report/test_outputs.py", "-k", "inverse_depth"],
    "add_evaluation, A command": ["tests/test_describe.py", "tests/test_architecture.py"],
    "add_data, A published data set": ["tests/datasets/test_sources.py", "tests/test_docs.py", "-k", "seven_scenes"],
    "add_data, An experiment": ["tests/test_experiments.py", "-k", "nyu_three_slices"],
    "add_data, A source of focus distances": ["tests/photographs/test_focus_distances.py"],
}
"""What of the tests, once the diff is applied, concerns it."""
MOST_FILES = {"add_evaluation, A command": 3}


def test_every_example_has_its_tests():
    assert set(DIFFS) == set(TESTS)


@pytest.mark.parametrize("name", TESTS)
def test_an_example_applies_to_the_present_code(name):
    files = applied(DIFFS[name])
    for path, text in files.items():
        if path.endswith(".py"):
            compile(text, path, "exec")
    others = [path for path in files if not path.startswith(("tests/", "docs/"))]
    assert len(others) <= MOST_FILES.get(name, 2), others


def test_a_hunk_whose_place_is_gone_is_refused():
    with pytest.raises(AssertionError, match="0 places"):
        applied("--- src/sfdfd/optics/psf.py\n@@\n there is no such line\n+another\n")


def test_every_row_of_contributing_links_to_an_example():
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## Where does my change go?")[1]
    rows = re.findall(r"^\| (?:a|an) .*\|$", table, re.MULTILINE)
    assert len(rows) > 15 and all("](" in row for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_an_example_passes_its_tests(name, tmp_path):
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "generated", "assets")
    for folder in ("src", "conf", "tests", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for file in (
        "pyproject.toml",
        ".importlinter",
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Makefile",
        "mkdocs.yml",
    ):
        shutil.copy(ROOT / file, copy)
    for path, text in applied(DIFFS[name], copy).items():
        (copy / path).write_text(text)
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "not slow", *TESTS[name]]
    env = {**os.environ, "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}"}
    done = subprocess.run(run, cwd=copy, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
