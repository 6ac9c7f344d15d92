"""Time the whole command on stacks of photographs: ``python benchmarks/predict_times.py 'LABEL=FOLDER' ...``.

Each stack is predicted by a process of its own, one after the other, as a user does it: ``python -m sfdfd.predict
stack=FOLDER``. Measured are the wall-clock time with import and writing, the seconds of each stage
(``prediction.json``), the largest memory and the size of the output folder. Run it on a machine that does nothing else.
Writes ``benchmarks/results/predict_times.json``, or adds to it with ``--add``. ``--set seconds=20`` gives overrides.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sfdfd.io.files import write_json

OUT = Path(__file__).parent / "results" / "predict_times.json"


def measured(label: str, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Predict one stack; return its row."""
    with tempfile.TemporaryDirectory() as parent:
        output = Path(parent, "out")
        command = [sys.executable, "-m", "sfdfd.predict", f"stack='{folder}'", f"output_dir='{output}'", *overrides]
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        message = process.stderr.read().decode("utf-8", "replace")
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        if status:
            raise SystemExit(f"{folder}: {message[-2000:]}")
        said = json.loads(next(output.rglob("prediction.json")).read_text())
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        height, width = np.load(next(output.rglob("*depth*.npy")), mmap_mode="r").shape[-2:]
        return {
            "stack": label,
            "slices": f"{len(said['alignment']['slices'])}, {width} x {height}",
            "seconds": round(seconds, 1),
            "seconds_by_stage": {key: round(value, 2) for key, value in said["seconds_by_stage"].items()},
            "steps": (said["refinement"] or {}).get("steps"),
            "peak_gb": round(usage.ru_maxrss / 1e6, 2),
            "files_mb": round(size / 1e6, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", nargs="+", metavar="LABEL=FOLDER")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of predict")
    parser.add_argument("--machine", default="x86_64, 2 cores")
    parser.add_argument("--add", action="store_true", help="keep the rows of other stacks")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    rows = []
    for stack in arguments.stacks:
        label, _, folder = stack.partition("=")
        rows.append(measured(label, Path(folder), arguments.set))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.add and arguments.out.is_file():
        labels = {row["stack"] for row in rows}
        rows = [row for row in json.loads(arguments.out.read_text())["rows"] if row["stack"] not in labels] + rows
    command = " ".join(["python -m sfdfd.predict stack=DIR", *arguments.set])
    note = "One run each, alone on the machine, with import and writing."
    write_json(arguments.out, {"machine": arguments.machine, "command": command, "note": note, "rows": rows})


if __name__ == "__main__":
    main()
