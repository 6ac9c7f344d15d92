"""The public API: frozen signatures, pages that list it, examples that run.

A wanted change of a signature: ``python -m tests.test_api`` writes public_api.json anew; the diff is the change of the API.
"""

import doctest
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

import sfdfd

ROOT = Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests" / "public_api.json"
PAGES = {page: page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md"))}
NAMES = [name for text in PAGES.values() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
WITHOUT_EXAMPLE = {
    # protocols and records that others' examples show, and what needs files
    "sfdfd.optics.render.Renderer", "sfdfd.optics.options.RenderOptions", "sfdfd.optics.psf.PSF",
    "sfdfd.refinement.refiner.Refinement", "sfdfd.refinement.settings.RefinementSettings", "sfdfd.refinement.lens.Lens",
    "sfdfd.measures.diagnosis.Diagnosis", "sfdfd.datasets.datamodule.FocalStackDataModule",
    "sfdfd.datasets.synthetic.ProceduralDataModule", "sfdfd.datasets.sources.base.DataSource",
    "sfdfd.datasets.stack_folders.read_stack",
}  # fmt: skip


def thing(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def signature(name):
    """Of a function or class, and of a class's public methods: names, kinds and defaults, no annotations."""

    def plain(callable_):
        given = inspect.signature(callable_)
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in given.parameters.values()]
        text = str(given.replace(parameters=bare, return_annotation=inspect.Signature.empty))
        return re.sub(r"<factory>|<(\w+) object at 0x[0-9a-f]+>|<function (\w+) at 0x[0-9a-f]+>", r"<\1\2>", text)

    found = thing(name)
    if not inspect.isclass(found):
        return plain(found)
    methods = {
        key: plain(getattr(found, key))
        for key, value in vars(found).items()
        if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod | staticmethod))
    }
    properties = sorted(key for key, value in vars(found).items() if isinstance(value, property) and key[0] != "_")
    return {"__init__": plain(found), **methods, **dict.fromkeys(properties, "property")}


def test_signatures_are_those_that_were_promised():
    promised, found = json.loads(FROZEN.read_text()), {name: signature(name) for name in sorted(NAMES)}
    assert found == promised


def test_public_names_are_exported_where_they_live():
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        assert attribute in importlib.import_module(module).__all__, name
    flat = {name.rpartition(".")[2] for name in NAMES}
    assert {name for name in sfdfd.__all__ if not name.startswith("_")} <= flat


def test_the_index_links_every_public_name():
    index = PAGES[ROOT / "docs" / "reference" / "index.md"]
    assert len(NAMES) == len(set(NAMES)) > 50
    assert set(re.findall(r"\]\(\w+\.md#(sfdfd\.\S+?)\)", index)) == set(NAMES)


def examples_of(name):
    found = thing(name)
    module = importlib.import_module(found.__module__)
    doc = inspect.getdoc(found) or ""
    return doctest.DocTestParser().get_doctest(
        doc, dict(vars(module)), name, inspect.getsourcefile(inspect.unwrap(found)), 0
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_EXAMPLE))
def test_examples_run(name):
    example = examples_of(name)
    assert example.examples, "a public name needs an example"
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=report.append)
    assert not report, "".join(report)


def test_public_names_say_what_they_are():
    for name in NAMES:
        assert len(inspect.getdoc(thing(name)) or "") > 40, name


if __name__ == "__main__":
    FROZEN.write_text(json.dumps({name: signature(name) for name in sorted(NAMES)}, indent=1) + "\n")
