"""Data modules: splits, masks, memory, loaders."""

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.sources.base import write_splits, write_stack
from sfdfd.datasets.splits import split_names
from sfdfd.datasets.synthetic import ProceduralDataModule, RerenderedDataModule
from sfdfd.errors import InputError
from sfdfd.inference.methods import baselines
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.sensor import SensorModel
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M, rgbd_module

RENDERER = DefocusRenderer(sigma_scale=0.5)


def test_splits_of_scenes_are_disjoint():
    module = ProceduralDataModule(
        renderer=RENDERER, camera=CAMERA, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0, height=24, width=32,
        train_length=3, val_length=2, test_length=2,
    )  # fmt: skip
    names = {split: {module.dataset(split)[i].name[0] for i in range(2)} for split in ("train", "val", "test")}
    assert not names["train"] & names["val"] and not names["val"] & names["test"] and not names["train"] & names["test"]
    assert 0.5 < module.constant_baseline_depth_m() < 10.0


def test_device_and_loader_synthesis_agree():
    common = {"renderer": RENDERER, "camera": CAMERA, "focus_distances_m": FOCUS_M, "near_m": 0.5, "far_m": 10.0,
              "height": 24, "width": 32, "train_length": 4, "val_length": 1, "test_length": 1, "batch_size": 4}  # fmt: skip
    modules = {where: ProceduralDataModule(synthesise_on=where, **common) for where in ("loader", "device")}
    batches = {}
    for where, module in modules.items():
        module.trainer = Ranks(1)
        torch.manual_seed(1)
        batches[where] = next(iter(module.train_dataloader()))
    raw = batches["device"]
    assert torch.equal(raw.images, raw.aif[:, None].expand_as(raw.images))  # nothing is rendered yet
    made = modules["device"].on_after_batch_transfer(raw, 0)
    torch.testing.assert_close(made.images, batches["loader"].images, atol=1e-6, rtol=0)
    assert torch.equal(made.depth_m, batches["loader"].depth_m) and torch.equal(made.valid, batches["loader"].valid)
    noisy = ProceduralDataModule(synthesise_on="device", sensor=SensorModel(read_std=0.02), **common)
    noisy.trainer = Ranks(1)
    first, again = (noisy.on_after_batch_transfer(raw, 0).images for _ in range(2))
    other = noisy.on_after_batch_transfer(replace(raw, random_key=tuple(one + 1 for one in raw.random_key)), 0).images
    assert torch.equal(first, again) and float((first - other).abs().mean()) > 0.01  # new noise for each random_key
    noisy.trainer.training = False
    assert noisy.on_after_batch_transfer(raw, 0) is raw  # validation and test are the loader's
    with pytest.raises(InputError, match=r"data\.synthesise_on"):
        ProceduralDataModule(synthesise_on="gpu", **common)


def test_depth_unit_and_holes_with_and_without_memory(rgbd):
    module = rgbd_module(rgbd, depth_unit_m=0.0005, holes=[0, 1000], in_memory=True)
    first, again = module.dataset("train")[1], module.dataset("train")[1]
    assert torch.equal(first.images, again.images) and first.images.dtype == torch.float32
    direct = rgbd_module(rgbd, depth_unit_m=0.0005, holes=[0, 1000], in_memory=False).dataset("train")[1]
    torch.testing.assert_close(first.images, direct.images)
    stored = iio.imread(rgbd / "depth" / "0001.png")
    assert bool(first.valid[0][torch.from_numpy((stored == 1000) | (stored == 0))].logical_not().all())


def test_the_evaluation_range_masks_true_depth(rgbd):
    module = rgbd_module(rgbd, far_mask_m=3.0)
    stack, whole = module.dataset("test")[0], rgbd_module(rgbd).dataset("test")[0]
    assert torch.equal(stack.valid, whole.valid & (whole.depth_m <= 3.0)) and torch.equal(stack.images, whole.images)
    assert module.protocol()["depth_mask_m"] == [0.0, 3.0]
    with pytest.raises(InputError, match=r"data\.far_mask_m"):
        rgbd_module(rgbd, far_mask_m=-1.0)


def test_prepared_stacks_are_rerendered_from_true_depth_and_aif(tmp_path):
    rng = np.random.default_rng(0)
    other = {"focal_length_m": 0.0029, "f_number": 1.0, "pixel_pitch_m": 3.1e-5}
    aif = rng.integers(0, 255, (20, 26, 3), dtype=np.uint8)
    depth_m = rng.uniform(0.8, 5, (20, 26)).astype(np.float32)
    depth_m[0, 0] = 0  # unknown
    for name in ("a", "b", "c"):
        write_stack(tmp_path, name, [aif // 2, aif // 3], other, [0.3, 0.7], 0.1, 6.0, depth_m, aif)
    options = {"renderer": RENDERER, "camera": CAMERA, "focus_distances_m": FOCUS_M, "near_m": 0.5, "far_m": 10.0}
    module = RerenderedDataModule(root=str(tmp_path), **options)
    stack = module.dataset("all")[1]
    assert stack.camera[0] == CAMERA and stack.name == ("b",) and stack.images.shape == (1, 5, 3, 20, 26)
    known = depth_m > 0
    assert np.array_equal(stack.valid[0].numpy(), known) and not known[0, 0]
    np.testing.assert_array_equal(stack.depth_m[0].numpy()[known], depth_m[known])
    filled = np.where(known, depth_m, np.median(depth_m[known]))
    expected = RENDERER(stack.aif, torch.from_numpy(filled)[None], torch.tensor(FOCUS_M), CAMERA)
    assert float((stack.images - expected).abs().max()) <= 0.5 / 255 + 1e-3
    assert "rendered anew" in module.protocol()["data"]
    write_stack(tmp_path, "d", [aif // 2, aif // 3], other, [0.3, 0.7], 0.1, 6.0)
    with pytest.raises(InputError, match=r"d.*stack\.yaml.*truth"):
        RerenderedDataModule(root=str(tmp_path), **options).dataset("all")[3]


def test_splits_are_blocks_or_come_from_files(rgbd, tmp_path):
    names = [f"{i:04d}" for i in range(40)]
    parts = {split: split_names(names, split) for split in ("train", "val", "test")}
    assert parts["train"] + parts["val"] + parts["test"] == names and len(parts["test"]) == len(parts["val"]) == 4
    listed = tmp_path / "val.txt"
    listed.write_text("0003\n0007\n")
    module = rgbd_module(rgbd, split_files={"val": str(listed)})
    assert [module.dataset("val")[i].name[0] for i in range(2)] == ["0003", "0007"]
    listed.write_text("0003\n9999\n")
    with pytest.raises(InputError, match="9999"):
        rgbd_module(rgbd, split_files={"val": str(listed)}).dataset("val")


def test_a_missing_data_set_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"data\.root=DIR.*prepare data=nyu") as caught:
        rgbd_module(tmp_path / "nothing").check()
    assert "\n" not in str(caught.value)


def test_a_frame_without_depth_is_named(rgbd):
    (rgbd / "depth" / "0004.png").unlink()
    with pytest.raises(InputError, match=r"0004\.png: no depth image"):
        rgbd_module(rgbd).check()


class Ranks:
    """A trainer of several processes, of which this is the last."""

    def __init__(self, world_size):
        self.world_size, self.global_rank, self.training = world_size, world_size - 1, True


@pytest.mark.parametrize(
    ("scenes", "ranks", "sizes"), [(2, 2, [1]), (3, 2, [2]), (4, 2, [2]), (9, 2, [2, 2]), (2, 1, [2]), (1, 1, [1])]
)
def test_an_incomplete_last_batch_is_dropped_per_process(scenes, ranks, sizes):
    """Two stacks over two processes at batches of two: each has one, and trains on it."""
    module = ProceduralDataModule(
        renderer=RENDERER, camera=CAMERA, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0, height=24, width=32,
        train_length=scenes, val_length=1, test_length=1, batch_size=2,
    )  # fmt: skip
    module.trainer = Ranks(ranks)
    assert [len(batch) for batch in module.train_dataloader()] == sizes


def test_resizing_resizes_every_camera(rgbd):
    module = rgbd_module(rgbd, resize=0.5)
    assert module.camera.pixel_pitch_m == pytest.approx(2.4e-5)
    assert module.protocol()["camera"]["pixel_pitch_m"] == pytest.approx(2.4e-5)
    assert module.nominal_acquisition()[0] == module.camera == module.dataset("all")[0].camera[0]
    assert module.resized(CAMERA) == module.camera


def test_the_seed_changes_sensor_noise_and_cache_keys(rgbd, tmp_path):
    options = {"sensor": SensorModel(read_std=0.02), "cache": str(tmp_path / "cache"), "in_memory": False}
    stacks = [rgbd_module(rgbd, seed=seed, **options).dataset("all")[3].images for seed in (0, 1, 1)]
    assert not torch.equal(stacks[0], stacks[1]) and torch.equal(stacks[1], stacks[2])
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2
    quiet = [rgbd_module(rgbd, seed=seed, cache=str(tmp_path / "quiet")).dataset("all") for seed in (0, 1)]
    assert quiet[0].path(3) == quiet[1].path(3)  # without noise the seed changes nothing


def test_diagnose_gets_the_focus_distances_that_are_used(rgbd, tmp_path):
    module = rgbd_module(rgbd, slices_in_depth_range=4)
    _, focus, (near_m, far_m), note = module.nominal_acquisition()
    spans = [stack.depth_m[stack.valid] for stack in module.dataset("all")]
    assert near_m == pytest.approx(float(np.median([float(span.min()) for span in spans])))
    assert focus == pytest.approx(np.linspace(near_m, far_m, 4).tolist()) and "each image's own depth range" in note
    nowhere = rgbd_module(tmp_path / "nowhere", slices_in_depth_range=4).nominal_acquisition()
    assert nowhere[1] == pytest.approx(np.linspace(0.5, 10, 4).tolist())


def test_no_constant_baseline_without_training_depth(tmp_path):
    """ZEDD trains on stacks whose truth nobody has."""
    camera = {"focal_length_m": 0.05, "f_number": 2.8, "pixel_pitch_m": 4e-5}
    rng = np.random.default_rng(0)
    for name, depth in (("a", None), ("b", rng.uniform(0.6, 3, (20, 26)))):
        slices = [rng.integers(0, 255, (20, 26, 3), dtype=np.uint8) for _ in range(2)]
        write_stack(tmp_path, name, slices, camera, [0.8, 2.0], 0.5, 4.0, depth)
    write_splits(tmp_path, {"train": ["a"], "val": ["b"], "test": ["a"]})
    module = StacksDataModule(root=str(tmp_path))
    assert module.constant_baseline_depth_m() is None and list(baselines(module, "val", RENDERER)) == ["classical"]
    assert StacksDataModule(root=str(tmp_path), constant_depth_m=1.5).constant_baseline_depth_m() == 1.5


def test_depth_is_found_if_only_some_stacks_have_it(tmp_path):
    camera = {"focal_length_m": 0.05, "f_number": 2.8, "pixel_pitch_m": 4e-5}
    rng = np.random.default_rng(0)
    for index in range(12):
        slices = [rng.integers(0, 255, (20, 26, 3), dtype=np.uint8) for _ in range(2)]
        depth_m = rng.uniform(0.6, 3, (20, 26)) if index in (4, 11) else None
        write_stack(tmp_path, f"s{index:02d}", slices, camera, [0.8, 2.0], 0.5, 4.0, depth_m)
    module = StacksDataModule(root=str(tmp_path), batch_size=12)
    assert sorted(baselines(module, "train", RENDERER)) == ["classical", "constant"]
    assert list(baselines(module, "val", RENDERER)) == ["classical"]
    batch = FocalStack.collate([module.dataset("all")[index] for index in range(12)])
    assert batch.valid.flatten(1).any(1).nonzero().flatten().tolist() == [4, 11]


def test_the_constant_baseline_is_the_median_of_the_training_split(rgbd):
    """Twelve images: the first ten train. Of two, or where the split files are the same, nothing but the test is there."""
    medians = [
        np.median(values[values > 0]) for i in range(10) for values in [iio.imread(rgbd / "depth" / f"{i:04d}.png")]
    ]
    constant = rgbd_module(rgbd).constant_baseline_depth_m()
    assert 1000 * constant == pytest.approx(sorted(medians)[4], abs=30) and constant != 2.5
    for index in range(2, 12):
        for part in ("rgb", "depth"):
            (rgbd / part / f"{index:04d}.png").rename(rgbd / f"{part}{index}.png")
    assert rgbd_module(rgbd).constant_baseline_depth_m() is None
    assert rgbd_module(rgbd, constant_depth_m=2.0).constant_baseline_depth_m() == 2.0
    (rgbd / "splits").mkdir()
    for split in ("train", "test"):
        (rgbd / "splits" / f"{split}.txt").write_text("0000\n0001\n")
    assert rgbd_module(rgbd).constant_baseline_depth_m() is None
    (rgbd / "splits" / "test.txt").write_text("0001\n")
    (rgbd / "splits" / "train.txt").write_text("0000\n")
    assert 1000 * rgbd_module(rgbd).constant_baseline_depth_m() == pytest.approx(medians[0], abs=30)
