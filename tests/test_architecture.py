"""Architecture: imports point down, every option of every group composes, functions stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import tomllib
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from sfdfd.optics import Renderer
from sfdfd.runs.command import CONF_DIR
from sfdfd.training.checkpoints import load_model

ROOT = Path(__file__).resolve().parents[1]


EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))


def test_imports_only_point_down():
    code = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def composed(overrides, command="train"):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(command, overrides=["output_dir=unused", *overrides])


@pytest.mark.parametrize("group", ["network", "loss", "optimizer", "data", "optics", "optics/camera"])
def test_every_option_of_every_group_composes(group):
    for file in (CONF_DIR / group).glob("*.yaml"):
        if group == "optics/camera":
            where = "optics/camera" if file.stem == "from_data" else "optics/camera@data.camera"
            override = [f"{where}={file.stem}"]
        else:
            override = [f"{group}={file.stem}"]
        config = composed(override)
        OmegaConf.to_container(config.data, resolve=True)
        OmegaConf.to_container(config.optics, resolve=True)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_every_renderer_serves_every_command(command):
    for file in (CONF_DIR / "optics").glob("*.yaml"):
        node = OmegaConf.to_container(composed([f"optics={file.stem}"], command).optics, resolve=True)["renderer"]
        assert isinstance(load_model(None, node)[1], Renderer), file


def test_the_models_camera_follows_the_datas_and_can_be_given_apart():
    config = composed(["optics/camera@data.camera=pixel6pro", "optics.camera.f_number=3"])
    assert config.data.camera.focal_length_m == config.optics.camera.focal_length_m == 0.00681
    assert (config.data.camera.f_number, config.optics.camera.f_number) == (1.85, 3)


def test_synthesis_follows_the_models_sigma_scale_unless_given():
    assert composed(["optics.sigma_scale=0.7"]).data.renderer.sigma_scale == 0.7
    apart = composed(["optics.sigma_scale=0.7", "data.renderer.sigma_scale=1.0"])
    assert (apart.optics.renderer.sigma_scale, apart.data.renderer.sigma_scale) == (0.7, 1.0)


def test_no_module_imports_a_command():
    """A command is called by a person, and by no other file (itself it may name, for processes that are to find it)."""
    graph = grimp.build_graph("sfdfd")
    commands = {f"sfdfd.{path.stem}" for path in CONF_DIR.glob("*.yaml")} | {"sfdfd.compare"}
    for command in commands:
        assert not graph.find_modules_that_directly_import(command) - {command}, command


def test_every_command_has_its_door_its_help_its_script_and_its_test():
    commands = {path.stem for path in CONF_DIR.glob("*.yaml")}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {f"sfdfd-{name}": f"sfdfd.{name}:main" for name in {*commands, "compare"}}
    for name in commands:
        assert (ROOT / "src" / "sfdfd" / f"{name}.py").is_file() and (ROOT / "tests" / f"test_{name}.py").is_file()
        assert f"python -m sfdfd.{name}" in OmegaConf.load(CONF_DIR / f"{name}.yaml").hydra.help.header, name


def test_every_option_says_what_it_is():
    """The first line of a config file is a comment in words (bases are named by their folder)."""
    for group in ("experiment", "data", "network", "loss", "optics", "recipe", "base", "data/base"):
        for file in (CONF_DIR / group).glob("*.yaml"):
            lines = file.read_text().splitlines()
            assert any(line.startswith("# ") and not line.startswith("# @") for line in lines[:2]), file


def test_the_flat_face_is_lazy():
    code = (
        "import sys, sfdfd; sfdfd.__version__; assert 'torch' not in sys.modules; sfdfd.Camera; sfdfd.DefocusEstimator"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def lowest(name, requirements):
    return next(r.specifier for r in requirements if r.name == name)


def test_no_range_admits_a_version_with_a_known_hole():
    """lightning 2.6.2 and 2.6.3 were malware, and 2.6.6 closed a hole; torch's weights_only is sound from 2.10 on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(line) for line in project["dependencies"]]
    for name, bad in {
        "lightning": ("2.6.2", "2.6.3", "2.6.5"), "torch": ("2.5.1", "2.9.1"), "pillow": ("12.1.0",),
        "hydra-core": ("1.3.5",), "jinja2": ("3.1.5",),
    }.items():  # fmt: skip
        assert not [version for version in bad if lowest(name, requirements).contains(version)], name
    assert lowest("lightning", requirements).contains("2.6.6") and (ROOT / "SECURITY.md").is_file()


LONGEST_FUNCTION, MOST_BRANCHES = 60, 15
"""Lines without the docstring, and branches: conditions, loops, handlers, asserts, operands of and/or, comprehensions."""
ALLOWED: dict[str, str] = {}
"""``module.function`` -> why it may be longer or more branched."""


def branches(node):
    """Count the branches below a syntax node, comprehensions and boolean operands included."""
    kinds = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert, ast.match_case)
    count = 0
    for child in ast.walk(node):
        count += isinstance(child, kinds)
        if isinstance(child, ast.BoolOp):
            count += len(child.values) - 1
        elif isinstance(child, ast.comprehension):
            count += 1 + len(child.ifs)
    return count


def lines_without_docstring(function):
    first = function.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_functions_are_short_and_have_few_branches():
    too_large = {}
    for path in sorted((ROOT / "src" / "sfdfd").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines, number = lines_without_docstring(function), 1 + sum(branches(part) for part in function.body)
                if lines > LONGEST_FUNCTION or number > MOST_BRANCHES:
                    too_large[f"{path.stem}.{function.name}"] = f"{lines} lines, {number} branches"
    assert {name: size for name, size in too_large.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) <= set(too_large), "an exception that is no longer needed"


SLOW_TO_LOAD = {"lightning", "torchmetrics", "matplotlib", "scipy.signal", "wandb", "gradio", "hydra"}
"""Packages that predicting photographs does not need before a picture is drawn."""


@pytest.mark.parametrize(
    "module", ["sfdfd.inference.predict_photographs", "sfdfd.inference.estimator", "sfdfd.report.prediction_folder"]
)
def test_inference_loads_no_package_that_it_does_not_need(module):
    code = f"import sys, {module}; print(*sorted({SLOW_TO_LOAD!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


TRAINING = {"lightning", "torchmetrics", "matplotlib", "scipy.signal"}
LOADS = {
    **dict.fromkeys(("train", "evaluate", "distil", "tune", "demo"), TRAINING),
    "dashboard": TRAINING | {"wandb"},
    "app": {"gradio", "matplotlib"},
}
"""What commands may load of :data:`SLOW_TO_LOAD` to do their work; the others, nothing."""


def modules_of(command):
    """Yield the modules that a command's functions import."""
    for function in ast.walk(ast.parse((ROOT / "src" / "sfdfd" / f"{command}.py").read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("sfdfd."):
                    yield node.module


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(path.stem for path in CONF_DIR.glob("*.yaml")))
def test_a_command_loads_what_it_may(command):
    modules = ", ".join(sorted(set(modules_of(command))))
    code = f"import sys, sfdfd.{command}, {modules}; print(*sorted({SLOW_TO_LOAD - {'hydra'}!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= LOADS.get(command, set())


def test_commands_load_nothing_heavy_before_they_begin():
    """Hydra apart: torch and what needs it are loaded inside the functions."""
    names = sorted(path.stem for path in CONF_DIR.glob("*.yaml"))
    heavy = {"torch", "kornia", "scipy", "cv2", *SLOW_TO_LOAD} - {"hydra"}
    code = f"import sys; {'; '.join(f'import sfdfd.{name}' for name in names)}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
