"""What every experiment composes to is written down: moving a key from file to file changes no run unnoticed.

``python -m tests.test_configs`` writes ``tests/composed.json`` anew, after a change that is meant. A new data set or
experiment is held against nothing until it stands there.
"""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sfdfd.runs.command import CONF_DIR

FILE = Path(__file__).with_name("composed.json")
EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
DATA = sorted(path.stem for path in (CONF_DIR / "data").glob("*.yaml"))
COMMANDS = {
    "train": ("train", []), "diagnose": ("diagnose", ["experiment_name=x"]), "evaluate": ("evaluate", []),
    "predict": ("predict", []), "export": ("export", []), "prepare": ("prepare", []),
    **{f"train experiment={name}": ("train", [f"experiment={name}"]) for name in EXPERIMENTS},
    **{f"train data={name}": ("train", [f"data={name}"]) for name in DATA},
    **{f"evaluate data={name}": ("evaluate", [f"data={name}"]) for name in DATA},
}  # fmt: skip


def flat(node, prefix=""):
    if isinstance(node, dict) and node:
        return {
            k: v for key, value in node.items() for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()
        }
    return {prefix: node}


def composed(case):
    command, overrides = COMMANDS[case]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(command, overrides=["output_dir=unused", *overrides])
    return flat(OmegaConf.to_container(config, resolve=True))


def difference(values, base):
    """What is other than in the base, and null-marked what it lacks."""
    changed = {key: value for key, value in values.items() if key not in base or base[key] != value}
    return {"set": changed, "lacks": sorted(set(base) - set(values))}


def described(case):
    """The whole config of the bare commands, and of the others what differs from them."""
    values = composed(case)
    return values if " " not in case else difference(values, composed(case.split()[0]))


@pytest.mark.parametrize("case", COMMANDS)
def test_it_composes_to_what_is_written_down(case, monkeypatch):
    monkeypatch.delenv("SFDFD_DATA", raising=False)
    found, written = json.loads(json.dumps(described(case))), json.loads(FILE.read_text())
    assert found == written.get(case, found)


@pytest.mark.slow
def test_everything_is_written_down():
    assert set(json.loads(FILE.read_text())) == set(COMMANDS), "python -m tests.test_configs"


if __name__ == "__main__":
    FILE.write_text(json.dumps({case: described(case) for case in COMMANDS}, indent=1, sort_keys=True) + "\n")
