"""A submission's figures follow from its files; one that was tampered with is refused with the reason."""

import json
import shutil

import jsonschema
import pytest

from sfdfd.datasets.stack_folders import stack_folders
from sfdfd.evaluation.submission import FILE, SCHEMA_FILE
from tests.commands import inside, one_line
from tests.evaluation.test_benchmark import root, stack  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def submitted(root, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("submitted")
    arguments = ["methods=[classical]", "submission=true", "threads=1", "output_dir=out"]
    done = inside("evaluate", "data=truebench", f"data.root='{root}'", *arguments, cwd=folder)
    assert "classical" in done.stdout and "95 % bootstrap interval" in done.stdout
    return folder / "out" / "predictions" / "classical"


@pytest.fixture
def copy(submitted, tmp_path):
    return shutil.copytree(submitted, tmp_path / "copy")


def verified(folder, data, expect=0):
    done = inside("evaluate", "data=truebench", f"data.root='{data}'", f"verify='{folder}'", "threads=1",
                  "output_dir=unused", cwd=folder, expect=expect)  # fmt: skip
    return done.stdout if expect == 0 else one_line(done.stderr)


def test_what_was_written_verifies_and_fits_the_schema(submitted, root):  # noqa: F811
    assert "follow from its files" in verified(submitted, root)
    content = json.loads((submitted / FILE).read_text())
    jsonschema.validate(content, json.loads(SCHEMA_FILE.read_text()))
    assert set(content["scenes"]) == {folder.name for folder in stack_folders(root)}


def changed(folder, change):
    content = json.loads((folder / FILE).read_text())
    change(content)
    (folder / FILE).write_text(json.dumps(content))


WRONG = {
    "figure": (lambda c: c["summary"]["all"]["abs_rel"].__setitem__(0, 0.001), "abs_rel of all"),
    "more than there is": (lambda c: c["summary"]["all"].update(left_out_psnr=[40, 39, 41]), "no file shows it"),
    "missing scene": (lambda c: c["scenes"].pop("phone_00"), "misses scenes: phone_00"),
    "unknown scene": (lambda c: c["scenes"].update(dslr_77={"files": {}}), "unknown scenes: dslr_77"),
    "hash": (lambda c: c["scenes"]["dslr_00"]["files"].update({"depth.npy": "0" * 64}), "are not those"),
    "other set": (lambda c: c["data"].update(edition=2027), "of edition 2027"),
    "schema": (lambda c: c.update(schema="other"), "schema: expected truebench-submission-1"),
    "no method": (lambda c: c.pop("method"), "method: expected dict"),
    "kind": (lambda c: c["method"].update(depth="feet"), "method.depth"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_submission_is_refused_with_the_reason(name, copy, root):  # noqa: F811
    change, message = WRONG[name]
    changed(copy, change)
    assert message in verified(copy, root, expect=2)


def test_files_that_were_lost_or_broken_are_named(copy, root):  # noqa: F811
    (copy / "dslr_00" / "aif.png").write_bytes(b"broken")
    assert "its files are not those" in verified(copy, root, expect=2)
    shutil.rmtree(copy / "dslr_00")
    assert "dslr_00" in verified(copy, root, expect=2)
    (copy / FILE).write_text("{")
    assert "not readable" in verified(copy, root, expect=2)


@pytest.mark.parametrize("name", ["schema", "no method", "kind"])
def test_the_schema_refuses_what_the_command_refuses(name, copy):
    changed(copy, WRONG[name][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads((copy / FILE).read_text()), json.loads(SCHEMA_FILE.read_text()))
