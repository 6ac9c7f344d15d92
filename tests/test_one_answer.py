"""The ways in give one answer: Python, the estimator, the command, the page and evaluate, at equal steps."""

import inspect
import json
import sys

import numpy as np
import pytest
import torch
import yaml

from sfdfd import Camera, DefocusEstimator, FocalStack, predict_photographs
from sfdfd.io.images import read_image, to_bytes, write_image
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.web.jobs import Job
from tests.commands import inside

FOCUS_M, STEPS = [1.0, 1.5, 2.5, 4.0, 6.0], 2
LIGHT = {"weighting": "occlusion", "psf": "disc", "linear_light": True, "method": "fast"}
AGREE = {"rtol": 1e-4, "atol": 1e-5}


def photographs(folder, height, width):
    """A stack whose camera is known, as a camera would have saved it."""
    camera = Camera(0.05, 8.0, 1.2e-5 * 320 / width)
    stack = example_stack(5, height, width, FOCUS_M, camera, **LIGHT)
    folder.mkdir(parents=True)
    names = [f"{index}.png" for index in range(len(FOCUS_M))]
    for name, image in zip(names, stack.images[0], strict=True):
        write_image(folder / name, image)
    described = {"camera": camera.as_dict(), "focus_distances_m": FOCUS_M, "near_m": 0.5, "far_m": 10.0, "files": names}
    (folder / "stack.yaml").write_text(yaml.safe_dump(described))
    return stack, camera, [folder / name for name in names]


def by_evaluate(folder, working_px):
    """The depth that the method "refined" has, as ``evaluate`` composes it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from sfdfd.evaluate import prepare_evaluation
    from sfdfd.runs.command import CONF_DIR

    OmegaConf.clear_resolvers()
    words = [
        "data=recorded", f"data.root={folder}", "checkpoint=pretrained", f"refine.steps={STEPS}",
        f"working_px={working_px}", f"data.working_px={working_px}", "device=cpu", "output_dir=.",
    ]  # fmt: skip
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("evaluate", words)
    evaluation = prepare_evaluation(config, 0, 1)
    stack = evaluation.datamodule.dataset("all")[0].with_optics(evaluation.optics)
    return evaluation.methods["refined"](stack).depth_m[0].numpy()


@pytest.mark.parametrize(("height", "width"), [(72, 96), pytest.param(540, 720, marks=pytest.mark.slow)])
def test_python_command_page_and_evaluate_give_one_depth(tmp_path, height, width):
    """At a small size, and beyond 512 x 512 pixels, where refinement starts from the network on a reduced stack."""
    folder = tmp_path / "stack"
    _, camera, files = photographs(folder, height, width)
    arguments = [f"refine.steps={STEPS}", f"working_px={width}", "device=cpu"]
    settings = {"refine_steps": STEPS, "working_px": width, "device": "cpu"}

    in_python = predict_photographs(folder, **settings)
    assert in_python.metric and in_python.depth_m.shape == (height, width)
    images = torch.stack([read_image(file) for file in files])
    in_memory = predict_photographs(
        to_bytes(images), focus_distances_m=FOCUS_M, camera=camera, near_m=0.5, far_m=10.0, **settings
    )
    stack = FocalStack.single(images, FOCUS_M, camera, near_m=0.5, far_m=10.0)
    estimator = DefocusEstimator.from_pretrained(working_px=width, device="cpu")
    estimator = DefocusEstimator(estimator.network, estimator.renderer, Refiner(steps=STEPS), width)
    of_stack = estimator.predict(stack).depth_m[0]

    inside("predict", f"stack={folder}", *arguments, f"output_dir={tmp_path / 'command'}", cwd=tmp_path)
    by_command = np.load(tmp_path / "command" / "depth_m.npy")
    job = Job(tmp_path / "jobs", longest_s=600)
    for file in [*files, folder / "stack.yaml"]:
        (job.photographs / file.name).write_bytes(file.read_bytes())
    for _ in job.predict({"refine.steps": STEPS, "working_px": width, "device": "cpu"}):
        pass
    on_page = np.load(job.prediction / "depth_m.npy")

    expected = in_python.depth_m.numpy()
    assert expected.std() > 0.1
    for found in (in_memory.depth_m.numpy(), of_stack.numpy(), by_command, on_page, by_evaluate(folder, width)):
        np.testing.assert_allclose(found, expected, **AGREE)


def test_a_result_saves_what_the_command_writes(tmp_path):
    prediction = predict_photographs("example", refine_seconds=0, holdout=[2])
    facts = prediction.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["depth_m"] == facts["depth_m"]
    assert (tmp_path / "out" / "report.html").is_file() and facts["left_out"][0]["index"] == 2
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "depth_m.npy"), prediction.depth_m.numpy())


def test_the_example_takes_every_key(tmp_path):
    """A key that was passed over in silence: camera, distances, range, slices, crop."""
    known = predict_photographs(
        "example", refine_seconds=0, weights=None, camera={"f_number": 16.0}, far_m=7.0, slices=3
    )
    assert known.camera.f_number == 16.0 and len(known.focus_distances_m) == 3
    assert known.facts["depth_range_m"][1] == 7.0
    assert "command line" in known.facts["sources"]["f_number"]
    cropped = predict_photographs("example", refine_seconds=0, weights=None, description={"crop": [10, 20, 0, 0]})
    assert cropped.depth_m.shape == (220, 310)


def test_images_in_memory_without_distances_are_relative():
    images = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)
    found = predict_photographs(list(images), refine_seconds=0, weights=None)
    assert not found.metric and found.relative_depth.shape == (48, 64)
    assert "RELATIVE" in found.statement


def test_importing_optics_imports_torch_alone():
    import subprocess

    code = (
        "import sys, sfdfd.optics; "
        "print([m for m in ('lightning', 'hydra', 'wandb', 'matplotlib', 'omegaconf', 'torchmetrics') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_python_command_and_page_refine_for_the_same_time():
    from sfdfd.inference.predict_photographs import refinement_seconds
    from sfdfd.refinement.refiner import DEFAULT_SECONDS
    from sfdfd.runs.command import CONF_DIR

    config = yaml.safe_load((CONF_DIR / "predict.yaml").read_text())
    assert config["seconds"] is None and config["refine"]["seconds"] is None
    parameters = inspect.signature(predict_photographs).parameters
    assert parameters["seconds"].default is None and parameters["refine_seconds"].default is None
    assert refinement_seconds(None, None) == DEFAULT_SECONDS
    assert inspect.signature(DefocusEstimator.from_pretrained).parameters["refine_seconds"].default == DEFAULT_SECONDS
    assert refinement_seconds(60.0, None) == 60 and refinement_seconds(60.0, 5.0) == 5  # the rest of the budget
