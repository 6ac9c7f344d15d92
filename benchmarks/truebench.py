"""Put runs of truebench together: ``python benchmarks/truebench.py TRUTH.json [TRUTH.json ...] [--real REAL.json]``.

Each file is a ``results.json`` of ``python -m sfdfd.evaluate data=truebench data.root=SET 'methods=[...]'``. Runs may hold
other methods, or other scenes of one method. Means and intervals are computed anew. Writes
``benchmarks/results/truebench.json``.

``python benchmarks/truebench.py --reference SET`` stores the thumbnails of a set in the package: every other
set is compared with them. It was made once, after the pictures had been looked at.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sfdfd.datasets.truebench_generator import write_reference
from sfdfd.evaluation.benchmark import SceneScore, differences, summarize
from sfdfd.io.files import write_json

OUT = Path(__file__).parent / "results" / "truebench.json"
DIGITS = 4
NOT_HAD = {
    "DFV": "its weights are not within reach; the adapter ran its network with random weights, on 64 x 48 pixels",
    "AiFDepthNet": "its weights are not within reach; the adapter has not run it",
    "DDFS, FOSSA": "neither is within reach; the adapter takes a loader of yours and is tested on a stub",
    "a monocular model": "no weights within reach; the adapter ran a tiny random one of `transformers`",
    "dfd": "minutes to an hour a scene; the adapter ran it on 64 x 48 pixels",
}
"""Peers without figures, and why."""


def merged(paths: list[Path]) -> dict:
    """Return the methods of several runs, each with all of its scenes."""
    methods: dict = {}
    for path in paths:
        for name, method in json.loads(path.read_text())["methods"].items():
            kept = methods.setdefault(name, {"depth": method["depth"], "how": method["how"], "scenes": {}})
            kept["scenes"].update({scene: rounded(one) for scene, one in method["scenes"].items()})
    for method in methods.values():
        method["scenes"] = dict(sorted(method["scenes"].items()))
        summary = summarize({scene: SceneScore(**one) for scene, one in method["scenes"].items()})
        method["summary"] = rounded(summary)
    return methods


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, nargs="*")
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--machine", default="x86_64, 2 cores")
    parser.add_argument("--reference", type=Path)
    arguments = parser.parse_args()
    if arguments.reference is not None:
        write_reference(arguments.reference)
        return
    run = json.loads(arguments.truth[-1].read_text())["protocol"]
    methods = merged(arguments.truth)
    write_json(
        OUT,
        {
            "machine": arguments.machine,
            "set": {key: run[key] for key in ("options", "reference") if key in run},
            "versions": run["run"]["versions"],
            "methods": methods,
            "differences": rounded(differences(methods)),
            "real": merged(arguments.real),
            "not_had": NOT_HAD,
        },
    )


if __name__ == "__main__":
    main()
