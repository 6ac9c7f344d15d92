"""Config values against what they are read as."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from sfdfd.errors import InputError
from sfdfd.runs.config_checks import check_arguments, check_sections


class Base:
    def __init__(self, root: str, seed: int = 0, camera: "Mapping[str, float | None] | None" = None) -> None:
        pass


class Part(Base):
    def __init__(
        self, width: int, share: float | None, mode: Literal["min", "max"] = "min", folder: Path = Path(), on: bool = True,
        distances: Sequence[float] = (), finish: Callable[..., Any] | None = None, pair: tuple[int, str] = (1, "x"),
        anything=None, **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(**others)


@pytest.mark.parametrize("given", [
    {"width": 3}, {"share": 1}, {"share": None}, {"share": 0.5}, {"mode": "max"}, {"folder": "x"}, {"on": False},
    {"distances": [1, 2.5]}, {"distances": []}, {"finish": None}, {"finish": {"_target_": "x"}}, {"pair": [1, "x"]},
    {"root": "data"}, {"seed": 5}, {"camera": {"f_number": None}}, {"camera": None}, {"anything": [1, {}]}, {"unknown": 1},
])  # fmt: skip
def test_values_that_fit_pass(given):
    check_arguments(Part, given, str)


@pytest.mark.parametrize(("given", "wanted"), [
    ({"width": "wide"}, "a whole number, got 'wide'"), ({"width": True}, "a whole number"),
    ({"width": 0.5}, "a whole number"),
    ({"width": None}, "a whole number"), ({"share": "x"}, "a number, null"), ({"share": []}, "a number, null"),
    ({"mode": "mean"}, "min, max"), ({"folder": 3}, "a path"), ({"on": 1}, "true or false"), ({"on": {}}, "true or false"),
    ({"distances": [1, "x"]}, "a list"), ({"distances": "1"}, "a list"), ({"distances": {}}, "a list"),
    ({"finish": 3}, "a mapping, null"), ({"root": 5}, "text"), ({"seed": "one"}, "a whole number"),
    ({"camera": 3}, "a mapping"),
])  # fmt: skip
def test_values_of_a_wrong_type_are_said_by_their_key(given, wanted):
    with pytest.raises(InputError, match=rf"^data\.{next(iter(given))}: expected {wanted}"):
        check_arguments(Part, given, lambda key: f"data.{key}")


FILES = {
    "look.yaml": "defaults: [base/more@_here_, {data: x}, _self_]\nrefine: {steps: 1}\nthreads: null\nhydra: {run: x}\n"
    "part: {_target_: x, width: 1}\n",
    "base/more.yaml": "camera: {f_number: null}\n",
}
WHOLE = {"refine": {"steps": 0}, "threads": 1, "camera": {"f_number": 2}, "part": None, "data": {"renderer": None}}


@pytest.mark.parametrize(("change", "message"), [
    ({}, None), ({"data": "${base}"}, None),
    ({"refine": 5}, "refine: expected a mapping with steps, got 5"), ({"refine": {}}, "refine.steps: it is needed"),
    ({"camera": None}, "camera: expected a mapping with f_number"), ({"data": "x"}, "data: expected a mapping"),
    ({"ckpt_path": "last"}, "ckpt_path: it is called resume now"),
    ({"data": {"near_m": "???"}}, "data.near_m: it has no default"),
    ({"data": {"renderer": 3}}, "data.renderer: expected a mapping"), ({"data": {"renderer": {}}}, None),
])  # fmt: skip
def test_sections_are_mappings_and_there(tmp_path, change, message):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    if message is None:
        check_sections({**WHOLE, **change}, tmp_path, "look")
    else:
        with pytest.raises(InputError, match=message):
            check_sections({**WHOLE, **change}, tmp_path, "look")
    with pytest.raises(InputError, match="threads: it is needed; leave ~threads out"):
        check_sections({key: value for key, value in WHOLE.items() if key != "threads"}, tmp_path, "look")
