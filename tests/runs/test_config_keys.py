"""Help texts and the reference page are made from conf/."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sfdfd.runs.command import CONF_DIR
from sfdfd.runs.config_keys import format_default, groups_of, help_text, keys_of, own_keys, summary_of
from tests.commands import inside

COMMANDS = sorted(path.stem for path in CONF_DIR.glob("*.yaml"))
GROUPS = ["data", "network", "loss", "optics", "optimizer", "trainer", "callbacks", "logger", "space"]
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]
PAGE = runpy.run_path(str(Path(__file__).resolve().parents[2] / "docs" / "figures" / "config_keys.py"))


def flat(node, prefix=""):
    if isinstance(node, dict) and node and not {"low", "choices"} & set(node):
        return {k: v for key, value in node.items() for k, v in flat(value, f"{prefix}.{key}".lstrip(".")).items()}
    return {prefix: node}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_keys_and_defaults_are_those_that_hydra_composes(group, option):
    command = "tune" if group == "space" else "train"
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        node = compose(command, overrides=[f"{group}={option}"])[group]
    composed = flat(OmegaConf.to_container(node))
    wanted = {key: value for key, value in composed.items() if key.rpartition(".")[2] not in ("_target_", "_partial_")}
    assert {key.name: key.default for key in keys_of(CONF_DIR, group, option)} == {k: v for k, v in wanted.items() if k}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_key_with_its_meaning_and_every_option(command):
    text = help_text(CONF_DIR, command)
    words = text.split()
    for key in own_keys(CONF_DIR, command):
        assert key.meaning and any(word.startswith(f"{key.name}=") for word in words), key
        assert " ".join(key.meaning.split()) in " ".join(words), key
    for group in groups_of(CONF_DIR, command):
        for file in (CONF_DIR / group.partition("@")[0]).glob("*.yaml"):
            assert summary_of(file), file
            assert file.stem in words or file.stem.endswith("_paper"), file
    assert all(len(line) <= 140 for line in text.splitlines()[2:])


@pytest.mark.parametrize(
    ("command", "names"), [("train", "plane_sweep"), ("evaluate", "raytraced"), ("tune", "trials")]
)
def test_the_command_prints_its_help(command, names, tmp_path):
    assert f"  {names}" in inside(command, "--help", cwd=tmp_path).stdout
    assert not list(tmp_path.iterdir())


def test_help_needs_neither_torch_nor_hydra():
    code = "import sys; sys.argv[1:] = ['--help']; import sfdfd.train as t; t.main(); "
    code += "print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_reference_page_has_every_key_with_type_and_meaning():
    lines = PAGE["tables"]().splitlines()
    rows = [[cell.strip() for cell in line.replace("\\|", "/").split("|")[1:-1]] for line in lines if line[:3] == "| `"]
    keys = {name.strip("`"): (type_, meaning) for name, type_, _, meaning in (row for row in rows if len(row) == 4)}
    for command in COMMANDS:
        assert f"### {command}" in lines
        assert not [key.name for key in own_keys(CONF_DIR, command) if not all(keys[key.name])]
    for group, option in OPTIONS:
        assert any(row[0] == f"`{option}`" and row[1] for row in rows if len(row) == 2), option
        assert not [key for key in keys_of(CONF_DIR, group, option) if not all(keys[f"{group}.{key.name}"])]


def test_only_its_own_page_is_extended():
    class Page:
        class file:
            src_uri = "index.md"

    assert PAGE["on_page_markdown"]("text", page=Page) == "text"
    Page.file.src_uri = "reference/config_keys.md"
    assert PAGE["on_page_markdown"]("text", page=Page).startswith("text\n## Commands")


def test_defaults_are_written_as_on_the_command_line():
    assert (
        format_default([1.0, None, "a", True, {"b": []}]) == "[1.0, null, a, true, {b: []}]"
        and format_default("") == "''"
    )
