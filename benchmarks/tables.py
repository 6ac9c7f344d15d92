"""The tables of README and docs, from what the benchmarks left: ``make results``.

Reads truth.json (``make bench-truth``) and robustness.json in benchmarks/results and rewrites what stands between
``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``. Figures of others, and ours that no benchmark writes, stand here with
where they come from.
"""

from __future__ import annotations

import json
from pathlib import Path

from truth import table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "raytraced/dslr": "path-traced, 50 mm f/1.2",
    "raytraced/phone": "path-traced, phone macro",
    "ours/dslr": "the same camera, our generator",
    "ours/phone": "the same phone, our generator",
}
FIXED = [
    # docs/refinement.md#the-lens; docs/results.md, with their commands
    ["a real phone's left-out slices (galaxy_house), dB", "nearest slice 35.3", "oracle's blend 38.6", "-", "37.5"],
    [
        "NYUv2, DEReD's protocol, 8 bits, synthesised by our renderer: AbsRel",
        ".110", "DEReD .170 (.054 re-evaluated by a user); dfd .056 in 598 s on another frame",
        ".040 (never saw NYU)", ".0088",
    ],
]  # fmt: skip


def replaced(page: Path, name: str, text: str) -> None:
    """What stands between the marks of this name becomes ``text``."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + "\n" + end + rest.split(end, 1)[1])


def refined(methods: dict) -> str:
    """The method that refines longest."""
    return max((name for name in methods if name.startswith("refined")), key=lambda name: methods[name]["seconds"])


def summary(groups: dict) -> str:
    """One row per protocol: classical, others, ours without and with refinement."""
    rows = []
    for group, found in groups.items():
        methods = found["methods"]
        best = refined(methods)

        def value(method: str, methods: dict = methods) -> str:
            mean, std = methods[method]["all"]["abs_rel"]
            return f"{mean:.3f} ± {std:.3f}".replace("0.", ".")

        name = f"{NAMES.get(group, group)} ({found['scenes']} scenes): AbsRel"
        last = f"**{value(best)}** ({best.split(', ')[1]})"
        rows.append([name, value("classical"), "-", f"{value('pretrained')} ({value('sweep')} without weights)", last])
    head = ["protocol", "classical depth from focus", "others", "ours, no refinement", "ours, refined"]
    lines = [head, ["---"] * len(head), *rows[:2], FIXED[0], *rows[2:], *FIXED[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def light(groups: dict) -> str:
    """Rows of methods, columns of cameras: AbsRel / at edges / AIF dB."""
    methods = list(next(iter(groups.values()))["methods"])
    head = ["AbsRel / at edges / AIF dB", *(f"{NAMES.get(g, g)} ({groups[g]['scenes']})" for g in groups)]
    lines = [head, ["---"] * len(head)]
    for method in methods:
        cells = []
        for found in groups.values():
            row = found["methods"][method]
            both, db = (row[region]["abs_rel"][0] for region in ("all", "edges")), row["all"]["aif_psnr"][0]
            cells.append(" / ".join([*(f"{one:.3f}" for one in both), f"{db:.1f}"]))
        lines.append([method, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def robustness(found: dict) -> str:
    """Rows of conditions, columns of methods: AbsRel, mean and standard deviation over frames."""
    methods = list(next(iter(found["rows"].values())))
    lines = [["AbsRel", *methods], ["---"] * (1 + len(methods))]
    for condition, row in found["rows"].items():
        lines.append([condition, *(f"{row[name][0]:.3f} ± {row[name][1]:.3f}" for name in methods)])
    said = f"`{found['command']}`; mean (± standard deviation) over {found['frames']} frames; nothing in it is random."
    return said + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    result = json.loads((RESULTS / "truth.json").read_text())
    groups = result["groups"]
    said = (
        f"`{result['command']}`; {result['machine']}; mean (± standard deviation) over scenes; nothing in it is random."
    )
    replaced(ROOT / "README.md", "results", summary(groups))
    replaced(ROOT / "docs" / "results.md", "truth", f"{said}\n\n{light(groups)}")
    bears = json.loads((RESULTS / "robustness.json").read_text())
    replaced(ROOT / "docs" / "results.md", "robustness", robustness(bears))
    by_region = "\n".join(table(group, found["scenes"], found["methods"]) for group, found in groups.items())
    replaced(ROOT / "docs" / "refinement.md", "truth", f"{said}\n\n{by_region}")


if __name__ == "__main__":
    main()
