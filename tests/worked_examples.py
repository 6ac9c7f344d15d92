"""Apply the diffs of the how-to pages by content: a hunk's place is where its lines stand, whatever their numbers."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORTENED = "..."
"""A context line that ends so is the beginning of the file's line."""


def diffs() -> dict[str, str]:
    """Return the diff of each section, by page and heading."""
    found = {}
    for page in sorted((ROOT / "docs" / "howto").glob("add_*.md")):
        for section in page.read_text().split("\n## ")[1:]:
            for block in re.findall(r"```diff\n(.*?)```", section, re.DOTALL):
                found[f"{page.stem}, {section.splitlines()[0]}"] = block
    return found


def applied(diff: str, root: Path = ROOT) -> dict[str, str]:
    """Return the text of each file that the diff changes or adds.

    ``+++ PATH`` begins a new file, ``--- PATH`` a changed one, and ``@@`` each of its hunks.
    """
    files = {}
    for sign, path, body in re.findall(r"^(\+\+\+|---) (\S+)\n(.*?)(?=^(?:\+\+\+|---) \S|\Z)", diff, re.M | re.S):
        if sign == "+++":
            assert not (root / path).exists(), f"{path} is there already"
            files[path] = "".join(line[1:] + "\n" for line in body.splitlines())
            continue
        lines = (root / path).read_text().splitlines()
        for hunk in re.split(r"^@@\n", body, flags=re.M)[1:]:
            lines = _with_hunk(lines, hunk.splitlines(), path)
        files[path] = "\n".join(lines) + "\n"
    return files


def _with_hunk(lines: list[str], hunk: list[str], path: str) -> list[str]:
    """Replace the one place where the hunk's old lines stand."""
    old = [line for line in hunk if not line.startswith("+")]
    places = [
        start
        for start in range(len(lines) - len(old) + 1)
        if all(_is_same(lines[start + index], line) for index, line in enumerate(old))
    ]
    assert len(places) == 1, f"{path}: {len(places)} places for\n" + "\n".join(old)
    new, position = [], places[0]
    for line in hunk:
        if line.startswith("+"):
            new.append(line[1:])
            continue
        if not line.startswith("-"):
            new.append(lines[position])
        position += 1
    return [*lines[: places[0]], *new, *lines[position:]]


def _is_same(line: str, expected: str) -> bool:
    text = expected[1:]
    if text.endswith(SHORTENED) and not expected.startswith("-"):
        return line.startswith(text.removesuffix(SHORTENED).rstrip())
    return line.rstrip() == text.rstrip()
