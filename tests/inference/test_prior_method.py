"""A prior in Python: files, arrays, models and finished predictions; refused where it shows another frame."""

import sys
import types

import numpy as np
import pytest
import torch

from sfdfd import predict_photographs
from sfdfd.errors import InputError
from sfdfd.inference.estimator import DefocusEstimator
from sfdfd.inference.monocular import monocular_depth
from sfdfd.inference.prior_method import ExternalDepth
from sfdfd.optics import DefocusRenderer
from sfdfd.photographs.lookup import example_photographs
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(psf="disc", linear_light=True, weighting="occlusion", method="fast")
QUICK = {"refine_seconds": 0, "weights": None, "align": False}


@pytest.fixture(scope="module")
def stack():
    synthesis = StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0)
    return procedural_stacks(1, synthesis, seed=3, height=96, width=128)[0]


def error(prediction, stack):
    return float(((prediction.depth_m - stack.depth_m).abs() / stack.depth_m)[stack.valid].mean())


@pytest.mark.parametrize("steps", [0, 6])
def test_a_good_map_lowers_the_error_and_noise_changes_nothing(stack, steps):
    """With and without steps from the start; the map is at another size and in another unit."""
    estimator = DefocusEstimator(renderer=RENDERER, refiner=Refiner(steps=steps))
    blind = stack.without_truth()
    without = estimator.predict(blind)
    larger = torch.nn.functional.interpolate(39.37 * stack.depth_m[None], (144, 192), mode="nearest-exact")[0, 0]
    joined = estimator.with_prior(ExternalDepth(larger))
    found = joined.predict(blind)
    assert error(found, stack) < 0.97 * error(without, stack)
    assert joined.start.facts()["kind"] == "depth" and joined.start.facts()["used"]
    assert found.confidence.mean() > without.confidence.mean()
    noise = ExternalDepth(torch.rand(96, 128))
    torch.testing.assert_close(estimator.with_prior(noise).predict(blind).depth_m, without.depth_m)


def test_a_finished_prediction_is_a_prior(tmp_path):
    """Its folder, or its depth; the facts say what it was good for, and the next prediction is close to it."""
    photographs = example_photographs(72, 96)
    first = predict_photographs(photographs, **QUICK)
    assert first.facts["prior"] is None
    first.save(tmp_path)
    lines = []
    again = predict_photographs(photographs, prior=tmp_path, say=lines.append, **QUICK)
    facts = again.facts["prior"]
    assert facts["used"] and facts["kind"] == "depth" and facts["explained_share"] > 0.95
    assert any(line.startswith("prior: ") and "decides on" in line for line in lines)
    assert ((again.depth_m - first.depth_m).abs() / first.depth_m).median() < 0.02


@pytest.mark.parametrize("shape", [(100, 100), (96, 72)])
def test_a_map_of_another_frame_is_refused(stack, shape):
    values = np.random.default_rng(0).random(shape)
    for make in (
        lambda: ExternalDepth(values, size=(96, 128)),
        lambda: DefocusEstimator(renderer=RENDERER).with_prior(ExternalDepth(values)).predict(stack.without_truth()),
    ):
        with pytest.raises(InputError, match="shape of the photographs"):
            make()


def test_wrong_kinds_are_refused():
    with pytest.raises(InputError, match="prior_kind"):
        ExternalDepth(np.eye(4), "disparity")


def test_a_model_needs_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"sfdfd\[mono\]"):
        ExternalDepth("transformers:some/model")


@pytest.fixture
def stub(monkeypatch):
    """The parts of transformers that are used: a model whose depth is the brightness, at half the size."""

    class Inputs(dict):
        def to(self, device):
            return self

    class Model(torch.nn.Module):
        def forward(self, pixel_values):
            depth = torch.nn.functional.avg_pool2d(pixel_values.mean(1, keepdim=True), 2)[:, 0]
            return types.SimpleNamespace(predicted_depth=depth)

    def processor(images, return_tensors):
        return Inputs(pixel_values=torch.from_numpy(images).permute(2, 0, 1)[None] / 255)

    def load(what):
        def from_pretrained(model_id, local_files_only):
            assert local_files_only
            if model_id != "some/model":
                raise OSError("no such model")
            return what

        return types.SimpleNamespace(from_pretrained=from_pretrained)

    module = types.ModuleType("transformers")
    module.AutoImageProcessor, module.AutoModelForDepthEstimation = load(processor), load(Model())
    monkeypatch.setitem(sys.modules, "transformers", module)


def test_a_model_sees_the_all_in_focus_image(stub):
    prior, aif = ExternalDepth("transformers:some/model"), torch.rand(1, 3, 32, 40)
    found = prior.at_size(aif)
    assert found.shape == (32, 40)
    means = torch.nn.functional.avg_pool2d(aif.mean(1, keepdim=True), 2)[0, 0]
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(found[None, None], 2)[0, 0], means, atol=0.15, rtol=0)


def test_missing_weights_are_said(stub):
    with pytest.raises(InputError, match="hf download other/model"):
        monocular_depth("other/model", torch.rand(3, 16, 16))


def test_a_tiny_random_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=37, image_size=32, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 16, 16], fusion_hidden_size=16, is_hybrid=False,
        reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    transformers.DPTForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    assert monocular_depth(str(tmp_path), torch.rand(3, 24, 40)).shape == (24, 40)
