"""Submissions to truebench: a method's answers with ``submission.json``, written and verified."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sfdfd.errors import InputError, one_line
from sfdfd.evaluation.benchmark import COSTS, Benchmark, SceneScore, score_scene, summarize
from sfdfd.inference.contestants import FolderContestant
from sfdfd.io.files import write_json
from sfdfd.io.run_record import run_record
from sfdfd.measures.alignment import DEPTH_KINDS

__all__ = ["FILE", "SCHEMA", "SCHEMA_FILE", "verify_submission", "write_submission"]

FILE = "submission.json"
SCHEMA = "truebench-submission-1"
SCHEMA_FILE = Path(__file__).with_name("submission.schema.json")
"""The form of ``submission.json``, as JSON Schema."""
TOLERANCE = 1e-3
"""Largest relative difference between a stated figure and the recomputed one."""
KEYS: dict[str, type] = {"schema": str, "data": dict, "method": dict, "scenes": dict, "summary": dict, "run": dict}
METHOD_KEYS: dict[str, type] = {"name": str, "depth": str, "how": str}
RUN_KEYS = ("python", "platform", "processor_cores", "versions", "git_sha", "git_dirty")


def write_submission(folder: Path, benchmark: Benchmark, method: Mapping[str, Any], name: str) -> None:
    """Write ``submission.json`` beside the answers of a method; its figures are those of the files.

    Args:
        folder: of the answers, as :func:`sfdfd.inference.contestants.write_answer` writes them.
        benchmark: the data.
        method: its entry in ``results.json``; time, memory and failures are taken from it.
        name: of the method.
    """
    scores = {}
    for scene, found in _rescored(folder, benchmark, name, method["depth"]).items():
        before = method["scenes"][scene]
        costs = {key: before[key] for key in COSTS}
        scores[scene] = SceneScore(found.figures, **costs, error=before["error"] or found.error)
    record = run_record()
    content = {
        "schema": SCHEMA,
        "data": data_of(benchmark),
        "method": {"name": name, "depth": method["depth"], "how": method["how"], "authors": "", "url": "", "note": ""},
        "scenes": {
            scene: {"files": hashes(folder / scene), **{key: asdict(one)[key] for key in (*COSTS, "error")}}
            for scene, one in scores.items()
        },
        "summary": summarize(scores),
        "run": {key: record[key] for key in RUN_KEYS},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, content)


def verify_submission(folder: Path, benchmark: Benchmark) -> dict[str, Any]:
    """Compute a submission's figures anew from its files, and return its content.

    Raises:
        InputError: the file is broken, is of other data, misses a scene, a file differs from its hash, an answer cannot be
            judged, or a figure is not the one that is stated.
    """
    content = read_submission(folder / FILE)
    name, kind = content["method"]["name"], content["method"]["depth"]
    _check_data(content["data"], data_of(benchmark))
    scores = _rescored(folder, benchmark, name, kind)
    _check_scenes(folder, content["scenes"], scores)
    stated, found = content["summary"], summarize(scores)
    for group, row in found.items():
        for key, value in row.items():
            if key in COSTS or key in ("scenes", "failed"):
                continue
            before = stated.get(group, {}).get(key)
            is_number = isinstance(before, list) and len(before) == 3 and isinstance(before[0], (int, float))
            if not is_number or not math.isclose(before[0], value[0], rel_tol=TOLERANCE):
                raise InputError(f"{folder}: {key} of {group}: {before} is stated, {value} follows from the files")
        claimed = set(stated.get(group, {})) - set(row) - set(COSTS)
        if claimed:
            raise InputError(f"{folder}: {', '.join(sorted(claimed))} of {group}: stated, but no file shows it")
    return content


def read_submission(path: Path) -> dict[str, Any]:
    """Read ``submission.json`` and check its form.

    Raises:
        InputError: it is no JSON, or a key is missing or of another type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({one_line(error)})") from None
    _check_keys(content, KEYS, path)
    if content["schema"] != SCHEMA:
        raise InputError(f"{path}: schema: expected {SCHEMA}, got {content['schema']!r}")
    _check_keys(content["method"], METHOD_KEYS, path)
    if content["method"]["depth"] not in DEPTH_KINDS:
        raise InputError(f"{path}: method.depth: expected one of {', '.join(DEPTH_KINDS)}")
    for scene, entry in content["scenes"].items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("files"), Mapping):
            raise InputError(f"{path}: scenes.{scene}: expected a mapping with files")
    return content


def _check_keys(content: Any, keys: Mapping[str, type], path: Path) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected a mapping, got {type(content).__name__}")
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind):
            raise InputError(f"{path}: {key}: expected {kind.__name__}, got {content.get(key)!r:.80}")


def data_of(benchmark: Benchmark) -> dict[str, Any]:
    """Return what the figures depend on besides the method: the set's options, and whether it equals the reference."""
    protocol = benchmark.datamodule.protocol()
    options = protocol.get("options") or {}
    return {
        "edition": options.get("edition"),
        "size": [options.get("height"), options.get("width")],
        "samples": options.get("samples"),
        "matches_reference": (protocol.get("reference") or {}).get("matches"),
    }


def _check_data(stated: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for key in ("edition", "size"):
        if stated.get(key) != own[key]:
            raise InputError(
                f"the submission is of {key} {stated.get(key)}, the data of {own[key]}; give the same set as data.root=DIR"
            )
    if own["matches_reference"] is False:
        raise InputError("this machine's set differs from the reference (manifest.json); it cannot verify a submission")


def _check_scenes(folder: Path, stated: Mapping[str, Any], scores: Mapping[str, SceneScore]) -> None:
    missing, unknown = set(scores) - set(stated), set(stated) - set(scores)
    if missing or unknown:
        word, names = ("misses", missing) if missing else ("names unknown", unknown)
        raise InputError(f"{folder}: it {word} scenes: {', '.join(sorted(names))}")
    for scene, entry in stated.items():
        if entry["files"] != hashes(folder / scene):
            raise InputError(f"{folder}: {scene}: its files are not those of {FILE}")
        if scores[scene].error and not entry.get("error"):
            raise InputError(f"{folder}: {scene}: {scores[scene].error}")


def _rescored(folder: Path, benchmark: Benchmark, name: str, kind: str) -> dict[str, SceneScore]:
    contestant = FolderContestant(name, folder, kind)
    dataset, scores = benchmark.datamodule.dataset(benchmark.split), {}
    for index in range(len(dataset)):
        sample = dataset[index].with_optics(benchmark.optics)
        scores[sample.name[0]] = score_scene(replace(benchmark, keep=False), contestant, sample, folder)
    return scores


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an answer by its name."""
    files = sorted(path for path in folder.glob("*") if path.stem in ("depth", "aif")) if folder.is_dir() else []
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
