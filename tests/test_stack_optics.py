"""A stack carries how it was blurred, from wherever it comes, and every method inverts that."""

import numpy as np
import pytest
import torch
import yaml

from sfdfd import BlurModel, Camera, DefocusEstimator, DefocusRenderer, FocalStack, InputError, render_focal_stack
from sfdfd.datasets.cache import CachedStacks
from sfdfd.datasets.common_optics import common_optics
from sfdfd.datasets.datamodule import ShardsDataModule, StacksDataModule
from sfdfd.datasets.shards import write_shard
from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod
from sfdfd.io.images import write_image
from sfdfd.networks import classical_network
from sfdfd.optics.camera import _one_number
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.stack import renderer_for, resize_area

GAUSSIAN = DefocusRenderer(sigma_scale=0.5)
DISC = BlurModel(psf="disc", weighting="source", linear_light=True)
CAMERA = Camera(0.05, 8.0, 1.2e-5)


def prepared(folder, optics):
    stack = example_stack(**DISC.known())
    folder.mkdir(parents=True)
    for index, image in enumerate(stack.images[0]):
        write_image(folder / f"{index}.png", image)
    said = {
        "camera": CAMERA.as_dict(),
        "focus_distances_m": stack.focus_distances_m[0].tolist(),
        "near_m": 0.5,
        "far_m": 10.0,
    }
    (folder / "stack.yaml").write_text(yaml.safe_dump({**said, **({"optics": optics} if optics else {})}))


@pytest.mark.parametrize(
    "make",
    [
        lambda renderer: NetworkMethod(classical_network, renderer),
        SweepMethod,
        lambda renderer: RefinedMethod(SweepMethod(renderer), Refiner(steps=2), renderer),
        lambda renderer: DefocusEstimator(None, renderer),
    ],
    ids=["network", "sweep", "refined", "estimator"],
)
def test_every_method_uses_the_optics_of_the_stack(make):
    known = example_stack(**DISC.known())
    assert known.optics[0].psf == "disc"  # what rendered it
    silent = known.with_optics(None).without_truth()
    silent = FocalStack(**{**vars(silent), "optics": None})
    told, assumed = make(GAUSSIAN)(known), make(DISC.applied_to(GAUSSIAN))(silent)
    torch.testing.assert_close(told.depth_m, assumed.depth_m)
    torch.testing.assert_close(told.rendered, assumed.rendered)
    assert not torch.equal(told.rendered, make(GAUSSIAN)(silent).rendered)


def test_batches_of_several_optics_are_split():
    stacks = [example_stack(3), example_stack(4, **DISC.known()), example_stack(5)]
    batch, method = FocalStack.collate(stacks), SweepMethod(GAUSSIAN)
    assert [one.psf for one in batch.optics] == ["gaussian", "disc", "gaussian"]
    with pytest.raises(InputError, match="split_by_optics"):
        renderer_for(batch, GAUSSIAN)
    whole = method(batch)
    for index, one in enumerate(stacks):
        torch.testing.assert_close(whole[index].rendered, method(one).rendered)
    unknown = FocalStack.collate([stacks[0], FocalStack(**{**vars(stacks[1]), "optics": None})])
    assert unknown.optics[1] is None and unknown[1].optics == (None,)


def test_stacks_shards_and_the_cache_keep_the_optics(tmp_path):
    """It was checked and then ignored in prepared stacks and shards."""
    optics = {"psf": "disc", "linear_light": True}
    prepared(tmp_path / "stacks" / "a", optics)
    prepared(tmp_path / "stacks" / "b", None)
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "x.tar", [tmp_path / "stacks" / "a", tmp_path / "stacks" / "b"])
    for module in (StacksDataModule, ShardsDataModule):
        for attempt in range(2):  # made, and read from the cache
            root = tmp_path / ("stacks" if module is StacksDataModule else "shards")
            data = module(str(root), cache=str(tmp_path / "cache"), optics={"weighting": "occlusion"})
            a, b = (data.dataset("all")[index].optics[0] for index in (0, 1))
            assert a == BlurModel(weighting="occlusion", **optics) and b == BlurModel(weighting="occlusion"), attempt
    stack = CachedStacks(data.make_dataset("all"), tmp_path / "cache", {}, False)[0]
    assert stack.optics[0].psf == "disc"
    with pytest.raises(InputError, match=r"optics\.psf is disc in .*and None"):
        common_optics(tmp_path / "shards")
    assert common_optics(tmp_path / "shards", ["psf", "linear_light"]) == {}


def test_explicit_optics_override_those_of_the_stack():
    stack = example_stack()
    told = DefocusEstimator(None, optics={"psf": "disc"})
    assert "always disc" in repr(told) and "disc, occlusion weighting, linear light" in repr(DefocusEstimator())
    torch.testing.assert_close(told(stack).rendered, DefocusEstimator()(stack.with_optics({"psf": "disc"})).rendered)
    with pytest.raises(InputError, match="did you mean psf"):
        DefocusEstimator.from_pretrained(pfs="disc")
    with pytest.raises(InputError, match="unknown key 'pfs'; known are psf"):
        stack.with_optics({"pfs": "disc"})


def test_applying_photograph_optics_removes_a_published_window():
    dfd = DefocusRenderer(window_px=11, smallest_radius_px=2.0, weighting="target")
    assert BlurModel(psf="disc", weighting="occlusion").applied_to(dfd).options["window_px"] is None
    assert BlurModel.of(dfd).applied_to(GAUSSIAN).options == {**GAUSSIAN.options, **BlurModel.of(dfd).known()}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 7.0, -1.0])
def test_values_out_of_range_are_rejected(bad):
    """One NaN pixel ruined a whole prediction without a word."""
    images = torch.rand(3, 3, 24, 32)
    images[1, 0, 5, 5] = bad
    with pytest.raises(InputError, match=r"not finite|in \[0, 1\]"):
        FocalStack.single(images, [1.0, 2.0, 4.0], CAMERA, 0.5, 10.0)
    good = FocalStack.single(images.nan_to_num(0.5).clamp(0, 1), [1.0, 2.0, 4.0], CAMERA, 0.5, 10.0)
    broken = FocalStack(**{**vars(good), "images": images[None]})
    for method in (SweepMethod(GAUSSIAN), NetworkMethod(classical_network, GAUSSIAN), DefocusEstimator()):
        with pytest.raises(InputError):
            method(broken)


def test_types_are_converted():
    codes = torch.randint(0, 256, (3, 3, 24, 32), dtype=torch.uint8)
    wanted = codes.float() / 255
    deep = (codes.numpy().astype(np.uint16) * 257).transpose(0, 2, 3, 1)
    for images in (codes, wanted.double(), codes.numpy(), deep):
        stack = FocalStack.single(images, [1.0, 2.0, 4.0], CAMERA, 0.5, 10.0)
        assert stack.images.dtype == torch.float32
        torch.testing.assert_close(stack.images[0], wanted)
    with pytest.raises(InputError, match="divide by 255"):
        FocalStack.single(codes.float(), [1.0, 2.0, 4.0], CAMERA, 0.5, 10.0)
    with pytest.raises(InputError, match="expected RGB"):
        FocalStack.single(torch.rand(3, 1, 24, 32), [1.0, 2.0, 4.0], CAMERA, 0.5, 10.0)


def test_depth_with_a_channel_and_cameras_of_tensors():
    aif, depth_m, focus = torch.rand(2, 3, 16, 20), torch.full((2, 16, 20), 3.0), torch.tensor([1.0, 4.0])
    plain = render_focal_stack(aif, depth_m, focus, CAMERA)
    assert torch.equal(render_focal_stack(aif, depth_m[:, None], focus, CAMERA), plain)
    # tests check annotations, users do not: what a camera does with a tensor
    assert (
        _one_number(torch.tensor(8.0, dtype=torch.float64), "f_number") == _one_number(np.float64(8.0), "f_number") == 8
    )
    with pytest.raises(InputError, match="blur_factor=TENSOR"):
        _one_number(torch.tensor(0.05, requires_grad=True), "focal_length_m")


def test_areas_are_averaged_as_opencv_does():
    import cv2

    image = np.random.default_rng(0).random((61, 83, 3), dtype=np.float32)
    for height, width in ((20, 31), (60, 82), (61, 40)):
        wanted = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        found = resize_area(torch.from_numpy(image).permute(2, 0, 1), height, width).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_estimator_is_a_module():
    estimator = DefocusEstimator.from_pretrained(refine_seconds=0, device="cpu")
    weights = estimator.state_dict()
    assert weights and all(key.startswith("network.") for key in weights) and not estimator.training
    estimator.load_state_dict(weights)
    assert estimator.to("meta").device.type == "meta" and next(estimator.parameters()).device.type == "meta"


def test_renderer_options_are_the_same_wherever_they_are_named():
    import inspect
    from dataclasses import fields

    from sfdfd.optics.options import RenderOptions
    from sfdfd.optics.render import render_blurred

    wanted = {field.name: field.default for field in fields(RenderOptions)}
    for function in (render_focal_stack, render_blurred, DefocusRenderer):
        found = {key: one.default for key, one in inspect.signature(function).parameters.items() if key in wanted}
        assert found == wanted
    for function in (DefocusEstimator.from_pretrained, DefocusEstimator.from_checkpoint):
        assert wanted.keys() <= inspect.signature(function).parameters.keys()
