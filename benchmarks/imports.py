"""Processor seconds that each command takes to load: ``python benchmarks/imports.py``, or ``... imports.py train tune``.

Writes benchmarks/results/imports.json after each command.

``to_first_line`` ends where the command can print or compose its config, ``to_work`` where all that it imports is loaded.
Processor time, not wall time, so that other programs hardly matter; the least of three processes.
"""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src" / "sfdfd"
RESULTS = Path(__file__).parent / "results" / "imports.json"
WATCHED = (
    "torch",
    "kornia",
    "scipy.signal",
    "lightning",
    "torchmetrics",
    "matplotlib",
    "wandb",
    "gradio",
    "cv2",
)
RUNS = 3


def modules_of(command: str) -> Iterator[str]:
    """Yield the modules that a command's functions import."""
    for function in ast.walk(ast.parse((SOURCE / f"{command}.py").read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module and node.module != "sfdfd":
                    yield node.module


def cpu_s(code: str) -> float:
    """Return the processor seconds of a Python process."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(RUNS):
        begun = spent()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(spent() - begun)
    return round(min(times), 2)


def row_of(command: str) -> dict[str, Any]:
    """Return how long a command takes to load, and which heavy packages it loads."""
    everything = "import " + ", ".join(["sys", "hydra", f"sfdfd.{command}", *sorted(set(modules_of(command)))])
    listed = subprocess.run(
        [sys.executable, "-c", f"{everything}; print(*(name for name in {WATCHED!r} if name in sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        "to_first_line": cpu_s(f"import sfdfd.{command}, hydra"),
        "to_work": cpu_s(everything),
        "loads": sorted(listed.stdout.split()),
    }


def main() -> None:
    commands = sorted(path.stem for path in (SOURCE.parents[1] / "conf").glob("*.yaml"))
    content = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": {}}
    content |= {"command": "python benchmarks/imports.py", "torch": cpu_s("import torch")}
    for command in sys.argv[1:] or commands:
        content["rows"][command] = row_of(command)
        print(command, content["rows"][command], flush=True)
        content["rows"] = {name: row for name, row in sorted(content["rows"].items()) if name in commands}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
