"""The tables of README and docs, from what the benchmarks left: ``make results``.

Reads the JSON files of benchmarks/results and rewrites what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``
in README.md and docs/reference/results.md. Every figure of both pages comes from one of these files:

* truebench.json: put together by benchmarks/truebench.py from runs of `evaluate`.
* truth.json, robustness.json, refinement.json, scale.json, photographs.json, imports.json: written by the benchmark of
  that name.
* left_out.json, nyu.json, gpu.json: measured by the commands that they name, and entered by hand.
* published.json: quoted from papers and from users' reports, entered by hand.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reference" / "results.md"
NAMES = {
    "raytraced/dslr": "path-traced, 50 mm f/1.2",
    "raytraced/phone": "path-traced, phone macro",
    "ours/dslr": "the same camera, our generator",
    "ours/phone": "the same phone, our generator",
}
PROTOCOLS = {
    "raytraced/dslr": "path-traced, 50 mm f/1.2, photographic textures",
    "raytraced/phone": "path-traced, phone close-ups, photographic textures",
    "ours/dslr": "path-traced, 50 mm f/1.2, our generator",
    "ours/phone": "path-traced, phone close-ups, our generator",
    "nyu": "NYUv2 rooms, blurred by our own renderer as DEReD does (39 frames)",
}
"""In words, for the README."""
METHODS = {
    "constant (geometric mean of near and far)": "constant depth",
    "classical": "classical depth from focus",
    "sweep": "plane sweep (`checkpoint=null`)",
    "pretrained": "weights in the package",
    "refined from pretrained, 20 s": "refined from them, 20 s",
    "refined from pretrained, 60 s": "refined from them, 60 s",
}


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def replace_region(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks of this name."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + "\n" + end + rest.split(end, 1)[1])


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def number(value: float, digits: int = 3) -> str:
    """Format without the zero in front of the point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if value < 1 else f"{value:.{digits}f}"


def with_std(value: list[float], digits: int = 3) -> str:
    """Format a mean, and its standard deviation where there is one."""
    return " ± ".join(number(part, digits) for part in value)


def longest_refined(methods: dict) -> str:
    """Return the name of the method that refines longest."""
    return max((name for name in methods if name.startswith("refined")), key=lambda name: methods[name]["seconds"])


def refined_row(case: dict, digits: int = 4) -> str:
    return with_std([case["refined"]["abs_rel"], case["std_over_frames"]["abs_rel"]], digits)


def best_in_bold(values: list[float], texts: list[str]) -> list[str]:
    """Emphasize the text of the smallest value."""
    best = min(values)
    return [f"**{text}**" if value == best else text for value, text in zip(values, texts, strict=True)]


def summary() -> str:
    """Return the README's table of AbsRel: one row per protocol, from plain to refined; and a sentence on real stacks."""
    columns = ("classical", "sweep", "pretrained")
    rows = []
    for group, found in load("truth")["groups"].items():
        methods = found["methods"]
        errors = [methods[name]["all"]["abs_rel"] for name in (*columns, longest_refined(methods))]
        cells = best_in_bold([error[0] for error in errors], [with_std(error) for error in errors])
        rows.append([f"{PROTOCOLS[group]} ({found['scenes']} scenes)", *cells])
    methods = {row["key"]: row["abs_rel"] for row in load("nyu")["rows"]}
    refined = load("refinement")["cases"]["8 bits, 60 s"]
    values = [methods["classical"][0], methods["pretrained"][0], refined["refined"]["abs_rel"]]
    classical, pretrained, last = best_in_bold(values, [*(number(value) for value in values[:2]), refined_row(refined)])
    rows.append([PROTOCOLS["nyu"], classical, "-", pretrained, f"{last} (ten other frames)"])
    head = [
        "AbsRel on",
        "classical depth from focus",
        "plane sweep, no network",
        "weights in the package",
        "refined, 60 s",
    ]
    gains = [left_out_gains(stack) for stack in load("left_out")["stacks"]]
    nearest, blend = ([gain[index] for gain in gains] for index in (0, 1))
    real = (
        f"{len(gains)} real stacks have no true depth. There, photographs that were kept aside are predicted instead: "
        f"{mean_std(nearest)} dB against the nearest photograph, and {mean_std(blend)} dB against the best blend of the "
        "two neighbours, which is fitted to the photograph itself."
    )
    return f"{markdown(head, rows)}\n\n{real}"


def left_out_gains(stack: dict[str, Any]) -> tuple[float, float]:
    """Return the dB of the rendered slices over the nearest slice, and over the best blend."""
    return stack["rendered_db"] - stack["nearest_db"], stack["rendered_db"] - stack["blend_db"]


def mean_std(values: list[float]) -> str:
    return f"{statistics.mean(values):+.1f} ± {statistics.stdev(values):.1f}"


def source(command: str, *facts: str) -> str:
    return f"`{command}`; " + "; ".join(facts) + "."


def path_traced() -> str:
    """Return two tables of rows of methods and columns of cameras: AbsRel; AbsRel at edges and the AIF."""
    result = load("truth")
    groups = result["groups"]
    cameras = [f"{NAMES.get(g, g)} ({groups[g]['scenes']})" for g in groups]
    rows, more_rows = [], []
    for method in next(iter(groups.values()))["methods"]:
        name, found = METHODS.get(method, method), [group["methods"][method] for group in groups.values()]
        seconds = statistics.mean(row["seconds"] for row in found)
        rows.append([name, *(with_std(row["all"]["abs_rel"]) for row in found), f"{seconds:.1f}"])
        edges = (f"{number(row['edges']['abs_rel'][0])}; {row['all']['aif_psnr'][0]:.1f} dB" for row in found)
        more_rows.append([name, *edges])
    facts = source(
        result["command"], result["machine"], "mean ± standard deviation over scenes", "nothing in it is random"
    )
    tables = (markdown(["AbsRel", *cameras, "s a scene"], rows), markdown(["at edges; AIF", *cameras], more_rows))
    return "\n\n".join((facts, *tables))


TRUEBENCH = {
    "pretrained": "weights in the package",
    "refined": "refined from them, 20 s (`refine.seconds=20`)",
    "constant": "constant depth",
    "classical": "classical depth from focus, soft",
    "laplacian": "sharpest slice, Laplacian",
    "ring_difference": "sharpest slice, ring difference",
    "sweep": "plane sweep",
}
"""How truebench's table calls the package's own methods."""


def interval(value: list[float] | None, digits: int = 3) -> str:
    """Format a mean and the ends of its interval."""
    if value is None:
        return "-"
    mean, low, high = (number(part, digits) for part in value)
    return f"{mean} [{low}, {high}]"


def truebench() -> str:
    """Return the table of all scenes, that of the camera classes, and the peers without figures."""
    found = load("truebench")
    rows, more_rows = [], []
    for name, method in found["methods"].items():
        row, star = method["summary"]["all"], "*" if method["depth"] in ("relative", "inverse") else ""
        label = TRUEBENCH.get(name, f"`{name}`") + star
        if row["failed"]:
            label += f" ({row['failed']} failed)"
        parts = [
            number(row[key][0]) if key in row else "-" for key in ("abs_rel_edges", "abs_rel_occluded", "abs_rel_plain")
        ]
        costs = [f"{row[key]:.1f}" if key in row else "-" for key in ("cpu_seconds", "peak_gib")]
        aligned = number(row["abs_rel_aligned"][0]) if "abs_rel_aligned" in row else "-"
        rows.append(
            [
                label,
                str(row["scenes"]),
                interval(row.get("abs_rel")),
                *parts,
                aligned,
                interval(row.get("aif_psnr"), 1),
                *costs,
            ]
        )
        classes = [method["summary"].get(group, {}) for group in ("dslr", "phone", "macro")]
        more_rows.append(
            [
                label,
                *(interval(each.get("abs_rel")) for each in classes),
                *(interval(each.get("aif_psnr"), 1) for each in classes),
            ]
        )
    head = ["method", "scenes", "AbsRel", "edges", "occluded", "plain", "aligned", "AIF dB", "CPU s", "GiB"]
    more_head = [
        "method",
        *(f"AbsRel {name}" for name in ("DSLR", "phone", "macro")),
        *(f"AIF dB {name}" for name in ("DSLR", "phone", "macro")),
    ]
    commands = dict.fromkeys(
        f"{method['how']}    # {name}" for name, method in found["methods"].items() if name not in TRUEBENCH
    )
    made, scenes = (
        found["set"].get("options", {}),
        max(method["summary"]["all"]["scenes"] for method in found["methods"].values()),
    )
    number_of = (
        "all 30 scenes" if scenes == 30 else f"{scenes} of the 30 scenes, those that were traced when this was measured"
    )
    ours = ",".join(name for name in found["methods"] if name in TRUEBENCH)
    facts = (
        f"`python -m sfdfd.evaluate data=truebench data.root=SET 'methods=[{ours},"
        f"benchmarks/peers/peers.yaml]'`; edition {made.get('edition', 2026)}, {number_of}; {found['machine']}; "
        "mean [95 % bootstrap interval over scenes]; time is the median over scenes of processor seconds."
    )
    missing = "\n".join(f"* {name}: {why}." for name, why in found["not_had"].items())
    listed = "```bash\n" + "\n".join(commands) + "\n```"
    tables = "\n\n".join((markdown(head, rows), markdown(more_head, more_rows)))
    return f"{facts}\n\n{tables}\n\nWhat the peers ran:\n\n{listed}\n\nWithout figures:\n\n{missing}"


def truebench_real() -> str:
    """Return a row for each method on real stacks: left-out slices and the flatness of a plane."""
    found = load("truebench")
    rows = []
    for name, method in found["real"].items():
        row = method["summary"]["all"]
        values = [
            interval(row.get(key), 1) for key in ("left_out_psnr", "left_out_over_nearest", "left_out_over_blend")
        ]
        rows.append(
            [
                TRUEBENCH.get(name, f"`{name}`"),
                str(row["scenes"]),
                *values,
                interval(row.get("plane_deviation")).split(" ")[0],
            ]
        )
    return markdown(["method", "stacks", "left out dB", "over nearest", "over blend", "plane"], rows)


def left_out() -> str:
    """Return a row for each real stack: PSNR of the rendered slice and of its two rivals."""
    found = load("left_out")
    rows, gains = [], []
    for stack in found["stacks"]:
        rendered, nearest, blend = (stack[f"{key}_db"] for key in ("rendered", "nearest", "blend"))
        gains.append(left_out_gains(stack))
        indices = ", ".join(map(str, stack["held_out"]))
        values = [f"{value:.1f}" for value in (rendered, nearest, blend)]
        rows.append([stack["name"], stack["camera"], indices, *values, *(f"{gain:+.1f}" for gain in gains[-1])])
    over = [mean_std(list(column)) for column in zip(*gains, strict=True)]
    rows.append([f"mean ± std over the {len(gains)} stacks", "", "", "", "", "", *over])
    head = [
        "stack",
        "photographs",
        "left out",
        "rendered dB",
        "nearest slice",
        "best blend",
        "over nearest",
        "over blend",
    ]
    facts = source(found["command"], found["machine"], "one run each", "mean over the left-out slices of a stack")
    return f"{facts}\n\n{markdown(head, rows)}"


def nyu() -> str:
    """Return networks on 39 frames, refinement on ten, and another system that was run here."""
    found, refinement = load("nyu"), load("refinement")
    rows = [
        [row["method"], str(found["frames"]), row["training"], with_std(row["abs_rel"], 4 if len(row["abs_rel"]) > 1 else 3),
         with_std(row["rmse"]), with_std(row["delta1"]), f"{row['aif_db']:.1f}"]
        for row in found["rows"]
    ]  # fmt: skip
    for name in ("8 bits, 5 s", "8 bits, 60 s"):
        case, start = (
            refinement["cases"][name],
            refinement["cases"][name].get("start_from", "classical depth from focus"),
        )
        values, std = case["refined"], case["std_over_frames"]
        label = f"refined from {'a ' if start == 'plane sweep' else ''}{start}, {case['seconds']} s"
        rmse = with_std([values["rmse"], std["rmse"]])
        delta1, aif = number(values["delta1"], 4), f"{values['aif_psnr']:.1f}"
        rows.append([label, f"{case['frames']} of training", "-", refined_row(case), rmse, delta1, aif])
    for row in found["measured_elsewhere"]:
        values = (number(row[key]) for key in ("abs_rel", "rmse", "delta1"))
        rows.append([f"{row['method']} ({row['where']})", row["frames"], "-", *values, f"{row['aif_db']:.1f}"])
    head = ["method", "frames", "training", "AbsRel", "RMSE m", "delta1", "AIF dB"]
    commands = "\n".join(f"{row['command']}    # {row['key']}" for row in found["rows"] if row["key"] != "classical")
    listed = f"```bash\n{commands}\n{found['refined_command']}    # the refined rows\n```"
    facts = (
        f"{found['machine']}; ± is the standard deviation over the seeds of a network, over the frames of a refinement."
    )
    return f"{facts}\n\n{markdown(head, rows)}\n\n{listed}"


def published() -> str:
    """Return quoted figures, by data set and protocol."""

    def cell(row: dict[str, Any], key: str) -> str:
        values = row.get(key, [])
        digits = 4 if row["data"].startswith("DDFF") else 3
        return "; ".join(number(value, digits) for value in (values if isinstance(values, list) else [values])) or "-"

    facts, figures = ("data", "method", "supervision"), ("abs_rel", "rmse", "delta1")
    rows = [
        [*(row[key] for key in facts), *(cell(row, key) for key in figures), row["source"]]
        for row in load("published")["rows"]
    ]
    return markdown(["data", "method", "trained on", "AbsRel", "RMSE m", "delta1", "quoted from"], rows)


def robustness() -> str:
    """Return rows of conditions and columns of methods: AbsRel, mean and standard deviation over frames."""
    found = load("robustness")
    methods = list(next(iter(found["rows"].values())))
    rows = [[condition, *(with_std(row[name]) for name in methods)] for condition, row in found["rows"].items()]
    frames = f"mean ± standard deviation over {found['frames']} frames"
    facts = source(found["command"], found["machine"], frames, "nothing in it is random")
    return f"{facts}\n\n{markdown(['AbsRel', *(METHODS[name] for name in methods)], rows)}"


def speed() -> str:
    """Return what predictions, training steps and the renderer cost."""
    scale, photographs, gpu = load("scale"), load("photographs"), load("gpu")
    cpu = f"{scale['machine']['processor']}, {scale['machine']['cores']} cores"
    seconds = scale["refine_seconds"]
    rows = [
        [f"prediction, {row['width']} x {row['height']}, five slices, {seconds:g} s of refinement", f"{row['seconds']:.1f}",
         f"{row['peak_gib']:.1f}", cpu]
        for row in scale["predict"]
    ]  # fmt: skip
    times = load("predict_times")
    for row in times["rows"]:
        label = f"`predict` of photographs, all of it: {row['stack']}; {row['slices'].replace(', ', ' slices of ')}"
        rows.append([label, f"{row['seconds']:.0f}", f"{row['peak_gb'] / 1.074:.1f}", times["machine"]])
    refocus = next(row for row in photographs["rows"] if row["command"] == "refocus")
    label = f"`refocus`, {refocus['form']}"
    rows.append([label, f"{refocus['seconds']:.0f}", f"{refocus['peak_gib']:.1f}", photographs["machine"]])
    steps = {(row["network"], row["batch"], row["size"], row["slices"]): row["step"] for row in scale["steps"]}
    for network in ("focus_attention", "daif"):
        label = f"training step, `{network}`, 8 x 5 x 64²"
        rows.append([label, f"{steps[network, 8, 64, 5]:.2f}", "-", cpu])
    for row in gpu["rows"]:
        peak = f"{row['peak_gib']:.1f}" if "peak_gib" in row else "-"
        rows.append([row["what"], f"{row['seconds']:g}", peak, gpu["machine"]])
    facts = (
        f"`{scale['command']}`, `{times['command']}`, `python benchmarks/photographs.py` and, for the last rows, "
        f"`{gpu['rows'][0]['command']}`; "
        "single runs or medians of a few, no spread was recorded."
    )
    return f"{facts}\n\n{markdown(['what', 'seconds', 'peak memory GiB', 'machine'], rows)}"


def imports() -> str:
    """Return what each command loads and how long that takes."""
    found = load("imports")
    rows = [
        [f"`{name}`", f"{row['to_first_line']:.1f}", f"{row['to_work']:.1f}", ", ".join(row["loads"])]
        for name, row in found["rows"].items()
    ]
    facts = f"`{found['command']}`; processor seconds, least of three; torch alone takes {found['torch']:.1f}."
    return f"{facts}\n\n{markdown(['command', 'until its first line, s', 'until it works, s', 'loads'], rows)}"


def main() -> None:
    replace_region(ROOT / "README.md", "results", summary())
    for table in (path_traced, truebench, truebench_real, left_out, nyu, published, robustness, speed, imports):
        replace_region(PAGE, table.__name__, table())


if __name__ == "__main__":
    main()
