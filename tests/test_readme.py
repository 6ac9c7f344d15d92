"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_python_blocks_run(index):
    names = {}
    exec(compile(BLOCKS[index], f"README.md, Python block {index + 1}", "exec"), names)
    if "prediction" in names:
        assert names["prediction"].depth_m.shape[-2:] == names["images"].shape[-2:]


def test_there_are_blocks():
    assert len(BLOCKS) >= 2
