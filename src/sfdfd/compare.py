"""Compare runs: ``python -m sfdfd.compare multirun/train/DATE``."""

from __future__ import annotations

import sys
from pathlib import Path

from sfdfd.runs.comparison import collect, write_comparison


def main() -> None:
    """Compare the run folders on the command line; ``comparison.csv``, ``.md`` and ``.html`` go into the first."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "python -m sfdfd.compare FOLDER [FOLDER ...]      one table of every run below the folders, failed ones too;\n"
            "                                                 comparison.csv, .md and .html in the first"
        )
        sys.exit(0 if arguments else 2)
    folders = [Path(argument) for argument in arguments]
    rows = collect([folder for folder in folders if folder.is_dir()])
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None or not rows:
        print(
            f"sfdfd: {missing or folders[0]}: {'no such folder' if missing else 'no run below'}",
            file=sys.stderr,
        )
        sys.exit(2)
    write_comparison(rows, folders[0])


if __name__ == "__main__":
    main()
