"""Run notebooks from top to bottom, all or those named; fails on the first error. Outputs are kept nowhere.

python notebooks/run.py              # all
python notebooks/run.py 01_optics    # some
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent


class SameInterpreter(AsyncKernelManager):
    """Kernels of the Python that runs this, and so of the same package, whatever kernels are installed for the user."""

    @property
    def kernel_spec(self) -> KernelSpec:
        launcher = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=launcher, display_name="this Python", language="python")


def run(path: Path) -> None:
    """Execute one notebook in its folder, as Jupyter does.

    Raises:
        CellExecutionError: a cell fails; the message has the cell, what it printed and its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=600, kernel_manager_class=SameInterpreter, resources=resources)
    client.execute(
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # what cells print is theirs, not the terminal's


def main(names: list[str]) -> None:
    """Run these notebooks (names with or without suffix), or all."""
    paths = [FOLDER / f"{Path(name).stem}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb"))
    missing = [path.stem for path in paths if not path.is_file()]
    if missing:
        there = ", ".join(path.stem for path in sorted(FOLDER.glob("*.ipynb")))
        sys.exit(f"no such notebook: {', '.join(missing)}; there are {there}")
    for path in paths:
        started = time.monotonic()
        try:
            run(path)
        except CellExecutionError as error:
            sys.exit(f"{path.name}: failed\n{error}")
        print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
