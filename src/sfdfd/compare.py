"""Compare runs: ``python -m sfdfd.compare multirun/train/DATE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sfdfd.errors import InputError
from sfdfd.runs.command import exit_on_input_error
from sfdfd.runs.comparison import compare_runs, write_comparison

HELP = """\
python -m sfdfd.compare FOLDER [FOLDER ...]      one table of every run below the folders, failed ones too;
                                                 comparison.csv, .md and .html in the first"""


def main() -> None:
    """Compare the run folders on the command line; ``comparison.csv``, ``.md`` and ``.html`` go into the first."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
    if arguments[:1] not in (["-h"], ["--help"]):
        with exit_on_input_error():
            _compare([Path(argument) for argument in arguments])


def _compare(folders: Sequence[Path]) -> None:
    if not folders:
        raise InputError("give the folders of runs, or of folders of runs: python -m sfdfd.compare FOLDER [FOLDER ...]")
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such folder")
    rows = compare_runs(folders)
    if not rows:
        raise InputError(f"{folders[0]}: no run below")
    write_comparison(rows, folders[0])


if __name__ == "__main__":
    main()
