"""Sources of stacks: determinism, rounding, splits, masks, and errors that name the file or key."""

import os
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from sfdfd.captured import common_rectangle
from sfdfd.data.datamodule import (
    ProceduralDataModule,
    RecordedDataModule,
    RerenderedDataModule,
    RGBDDataModule,
    _Sparse,
    evenly_spread,
    split_names,
)
from sfdfd.data.images import read_image, write_image
from sfdfd.data.procedural import ProceduralScenes, make_scene
from sfdfd.data.recorded import read_stack
from sfdfd.data.sensor import SensorModel
from sfdfd.data.sources.base import write_stack
from sfdfd.data.synthesis import StackSynthesis
from sfdfd.errors import InputError
from sfdfd.optics import DefocusRenderer, render_focal_stack
from sfdfd.stack import FocalStack
from tests.conftest import CAMERA, FOCUS_M

RENDERER = DefocusRenderer(sigma_scale=0.5)


def synthesis(**options):
    return StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0, **options)


# ---------------------------------------------------------------- procedural


def test_scenes_are_the_same_on_any_number_of_workers_and_differ_from_each_other():
    scenes = ProceduralScenes(3, synthesis(), seed=5, height=24, width=32)
    loaders = [DataLoader(scenes, collate_fn=FocalStack.collate, num_workers=n) for n in (0, 2)]
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.depth_m, other.depth_m)
    assert not torch.equal(scenes[0].aif, scenes[1].aif)
    again = ProceduralScenes(2, synthesis(), seed=5, first_index=1, height=24, width=32)
    assert torch.equal(again[0].images, scenes[1].images)
    assert not torch.equal(ProceduralScenes(1, synthesis(), seed=6, height=24, width=32)[0].aif, scenes[0].aif)


def test_scenes_have_metric_depth_occlusion_and_texture():
    spans, edges, contrast = [], [], []
    for index in range(12):
        aif, depth = make_scene(0, index, 48, 64, 0.5, 10.0)
        assert aif.shape == (48, 64, 3) and aif.min() >= 0 and aif.max() <= 1
        assert depth.min() >= 0.5 and depth.max() <= 10.0 and np.isfinite(depth).all()
        spans.append(depth.max() / depth.min())
        edges.append((np.abs(np.diff(depth, axis=1)) > 0.1 * depth[:, 1:]).mean())
        contrast.append(np.abs(np.diff(aif.mean(2), axis=1)).mean())
    assert np.median(spans) > 1.8 and np.mean(edges) > 0.01 and np.median(contrast) > 0.01


def test_splits_of_scenes_are_disjoint():
    module = ProceduralDataModule(
        renderer=RENDERER, camera=CAMERA, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0, height=24, width=32,
        train_length=3, val_length=2, test_length=2,
    )  # fmt: skip
    names = {split: {module.dataset(split)[i].name[0] for i in range(2)} for split in ("train", "val", "test")}
    assert not names["train"] & names["val"] and not names["val"] & names["test"] and not names["train"] & names["test"]
    assert 0.5 < module.constant_baseline_m() < 10.0


# ---------------------------------------------------------------- synthesis


def test_synthesis_renders_and_rounds():
    aif, depth = torch.rand(3, 20, 24), 1 + 4 * torch.rand(20, 24)
    exact = render_focal_stack(aif[None], depth[None], torch.tensor(FOCUS_M), CAMERA, sigma_scale=0.5)[0]
    rounded, raw = synthesis()(aif, depth), synthesis(round_to_8_bits=False)(aif, depth)
    torch.testing.assert_close(raw.images[0], exact.clamp(0, 1))
    assert float((rounded.images - raw.images).abs().max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(rounded.images, (rounded.images * 255).round() / 255)


def test_noise_is_seeded_and_of_the_asked_size():
    aif, depth = torch.full((3, 64, 64), 0.5), torch.full((64, 64), 2.0)
    make = synthesis(sensor=SensorModel(read_std=0.02), round_to_8_bits=False)
    one, same, other = make(aif, depth, seed=1), make(aif, depth, seed=1), make(aif, depth, seed=2)
    assert torch.equal(one.images, same.images) and not torch.equal(one.images, other.images)
    assert float((one.images - 0.5).std()) == pytest.approx(0.02, rel=0.05)


def test_depth_out_of_range_is_not_valid():
    depth = torch.tensor([[0.2, 1.0], [5.0, 20.0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    stack = synthesis()(torch.rand(3, 16, 16), depth)
    assert torch.equal(stack.valid[0], (depth >= 0.5) & (depth <= 10))


def test_synthesis_on_the_device_gives_what_the_loader_gives():
    common = {"renderer": RENDERER, "camera": CAMERA, "focus_distances_m": FOCUS_M, "near_m": 0.5, "far_m": 10.0,
              "height": 24, "width": 32, "train_length": 4, "val_length": 1, "test_length": 1, "batch_size": 4}  # fmt: skip
    modules = {where: ProceduralDataModule(synthesise_on=where, **common) for where in ("loader", "device")}
    batches = {}
    for where, module in modules.items():
        module.trainer = SimpleNamespace(training=True)
        torch.manual_seed(1)
        batches[where] = next(iter(module.train_dataloader()))
    raw = batches["device"]
    assert torch.equal(raw.images, raw.aif[:, None].expand_as(raw.images))  # nothing is rendered yet
    made = modules["device"].on_after_batch_transfer(raw, 0)
    torch.testing.assert_close(made.images, batches["loader"].images, atol=1e-6, rtol=0)
    assert torch.equal(made.depth_m, batches["loader"].depth_m) and torch.equal(made.valid, batches["loader"].valid)
    noisy = ProceduralDataModule(synthesise_on="device", sensor=SensorModel(read_std=0.02), **common)
    noisy.trainer = SimpleNamespace(training=True)
    first, second = noisy.on_after_batch_transfer(raw, 0).images, noisy.on_after_batch_transfer(raw, 0).images
    assert float((first - second).abs().mean()) > 0.01  # new noise each time
    noisy.trainer.training = False
    assert noisy.on_after_batch_transfer(raw, 0) is raw  # validation and test are the loader's
    with pytest.raises(InputError, match=r"data\.synthesise_on"):
        ProceduralDataModule(synthesise_on="gpu", **common)


def test_a_padded_batch_is_rendered_sample_by_sample():
    make, stacks = synthesis(), []
    for height, width in ((20, 24), (18, 30), (20, 24)):
        stacks.append(make.unrendered(torch.rand(3, height, width), 1 + 4 * torch.rand(height, width)))
    together = make.rendered(FocalStack.collate(stacks), torch.Generator())
    for index, stack in enumerate(stacks):
        alone = make.rendered(stack, torch.Generator())
        torch.testing.assert_close(together[index].images, alone.images, atol=1e-6, rtol=0)
        assert torch.equal(together[index].depth_m, alone.depth_m)


def test_focus_distances_from_the_depth_range_are_said_to_leak():
    depth = torch.linspace(1.2, 4.0, 32).expand(24, 32).contiguous()
    known = torch.ones(24, 32, dtype=torch.bool)
    known[:, 0] = False  # an unknown pixel says nothing of the range
    stack = synthesis(slices_in_depth_range=4)(torch.rand(3, 24, 32), depth, valid=known)
    expected = torch.linspace(float(depth[0, 1]), 4.0, 4)
    torch.testing.assert_close(stack.focus_distances_m[0], expected)
    common = {"renderer": RENDERER, "camera": CAMERA, "focus_distances_m": FOCUS_M, "near_m": 0.5, "far_m": 10.0}
    assert "range" in ProceduralDataModule(slices_in_depth_range=4, **common).protocol()["leaks"]
    assert "leaks" not in ProceduralDataModule(**common).protocol()
    with pytest.raises(InputError, match=r"data\.slices_in_depth_range"):
        synthesis(slices_in_depth_range=1)


# ---------------------------------------------------------------- RGB-D folders


@pytest.fixture
def rgbd(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    for index in range(12):
        iio.imwrite(tmp_path / "rgb" / f"{index:04d}.png", rng.integers(0, 255, (20, 26, 3), dtype=np.uint8))
        millimetres = rng.integers(900, 8000, (20, 26), dtype=np.uint16)
        millimetres[:3, :4] = 0
        iio.imwrite(tmp_path / "depth" / f"{index:04d}.png", millimetres)
    return tmp_path


def rgbd_module(root, **options):
    return RGBDDataModule(
        root=str(root), renderer=RENDERER, camera=CAMERA, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0, **options
    )


def test_rgbd_reads_millimetres_and_masks_holes(rgbd):
    stack = rgbd_module(rgbd).dataset("all")[0]
    stored = iio.imread(rgbd / "depth" / "0000.png")
    known = stack.valid[0].numpy()
    assert not known[:3, :4].any() and known[3:].all()
    np.testing.assert_allclose(stack.depth_m[0].numpy()[known], stored[known] / 1000, rtol=1e-6)
    np.testing.assert_allclose(
        stack.aif[0].permute(1, 2, 0).numpy(), iio.imread(rgbd / "rgb" / "0000.png") / 255, atol=1e-6
    )
    assert stack.images.shape == (1, 5, 3, 20, 26) and stack.name == ("0000",)


def test_unit_holes_and_memory(rgbd):
    module = rgbd_module(rgbd, depth_unit_m=0.0005, holes=[0, 1000], in_memory=True)
    first, again = module.dataset("train")[1], module.dataset("train")[1]
    assert torch.equal(first.images, again.images) and first.images.dtype == torch.float32
    direct = rgbd_module(rgbd, depth_unit_m=0.0005, holes=[0, 1000], in_memory=False).dataset("train")[1]
    torch.testing.assert_close(first.images, direct.images)
    stored = iio.imread(rgbd / "depth" / "0001.png")
    assert bool(first.valid[0][torch.from_numpy((stored == 1000) | (stored == 0))].logical_not().all())


def test_resizing_resizes_the_pixel_pitch(rgbd):
    stack = rgbd_module(rgbd, resize=0.5).dataset("all")[0]
    assert stack.images.shape[-2:] == (10, 13)
    assert stack.camera[0].pixel_pitch_m == pytest.approx(2.4e-5)


def test_a_border_crop_cuts_image_depth_and_mask_alike(rgbd):
    whole, cut = (rgbd_module(rgbd, **options).dataset("all")[0] for options in ({}, {"crop": [2, 1, 3, 0]}))
    assert torch.equal(cut.aif, whole.aif[..., 1:, 2:-3]) and torch.equal(cut.valid, whole.valid[..., 1:, 2:-3])
    assert torch.equal(cut.depth_m[cut.valid], whole.depth_m[..., 1:, 2:-3][cut.valid])
    assert cut.camera == whole.camera  # a crop changes no pixel
    with pytest.raises(InputError, match=r"data\.crop"):
        rgbd_module(rgbd, crop=[20, 0, 0, 0]).dataset("all")[0]
    with pytest.raises(InputError, match=r"data\.crop"):
        rgbd_module(rgbd, crop=[-1, 0, 0, 0]).dataset("all")


def test_the_eigen_crop_limits_what_counts_and_cuts_nothing(tmp_path):
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    iio.imwrite(tmp_path / "rgb" / "a.png", np.full((480, 640, 3), 90, np.uint8))
    iio.imwrite(tmp_path / "depth" / "a.png", np.full((480, 640), 2000, np.uint16))
    module = rgbd_module(tmp_path, evaluation_crop="eigen")
    stack = module.dataset("all")[0]
    expected = np.zeros((480, 640), bool)
    expected[45:471, 41:601] = True  # as others' evaluations have it
    assert np.array_equal(stack.valid[0].numpy(), expected) and "eigen" in module.protocol()["mask"]
    halved = rgbd_module(tmp_path, evaluation_crop="eigen", resize=0.25).dataset("all")[0].valid[0]
    assert abs(float(halved.float().mean()) - expected.mean()) < 0.01
    with pytest.raises(InputError, match=r"data\.evaluation_crop"):
        rgbd_module(tmp_path, evaluation_crop="garg").dataset("all")


def test_in_painted_depth_counts_only_where_the_raw_one_knows_it(rgbd):
    (rgbd / "raw_depth").mkdir()
    for path in sorted((rgbd / "depth").iterdir()):
        raw = iio.imread(path)
        raw[10:, :5] = 0
        iio.imwrite(rgbd / "raw_depth" / path.name, raw)
    plain, masked = (rgbd_module(rgbd, **o).dataset("all")[3] for o in ({}, {"mask_folder": "raw_depth"}))
    assert torch.equal(masked.depth_m, plain.depth_m) and torch.equal(masked.images, plain.images)
    expected = plain.valid.clone()
    expected[:, 10:, :5] = False
    assert torch.equal(masked.valid, expected) and bool((expected != plain.valid).any())
    with pytest.raises(InputError, match=r"no_such.*data\.mask_folder"):
        rgbd_module(rgbd, mask_folder="no_such").dataset("all")


def test_a_range_of_evaluation_masks_truth(rgbd):
    module = rgbd_module(rgbd, far_mask_m=3.0)
    stack, whole = module.dataset("test")[0], rgbd_module(rgbd).dataset("test")[0]
    assert torch.equal(stack.valid, whole.valid & (whole.depth_m <= 3.0)) and torch.equal(stack.images, whole.images)
    assert module.protocol()["depth_mask_m"] == [0.0, 3.0]
    with pytest.raises(InputError, match=r"data\.far_mask_m"):
        rgbd_module(rgbd, far_mask_m=-1.0)


def test_prepared_stacks_are_rendered_anew_from_their_truth(tmp_path):
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


def test_split_is_in_blocks_or_from_files(rgbd, tmp_path):
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
        rgbd_module(tmp_path / "nothing")
    assert "\n" not in str(caught.value)


def test_a_frame_without_depth_is_named(rgbd):
    (rgbd / "depth" / "0004.png").unlink()
    with pytest.raises(InputError, match=r"0004\.png: no depth image"):
        rgbd_module(rgbd)


# ---------------------------------------------------------------- recorded stacks


@pytest.fixture
def recorded(tmp_path):
    folder = tmp_path / "my stack"
    folder.mkdir()
    for name in ("b.png", "a.png", "c.png"):
        write_image(folder / name, torch.full((3, 24, 32), {"a": 0.2, "b": 0.4, "c": 0.6}[name[0]]))
    content = {
        "camera": {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5},
        "focus_distances_m": [1.0, 2.0, float("inf")],
        "near_m": 0.5,
        "far_m": 9.0,
        "crop": [1, 2, 3, 0],
    }
    (folder / "stack.yaml").write_text(yaml.safe_dump(content))
    return folder


def rewrite(folder, **changes):
    file = folder / "stack.yaml"
    content = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))


def test_slices_are_read_in_the_order_of_their_names_and_cropped(recorded):
    stack = read_stack(recorded)
    assert stack.images.shape == (1, 3, 3, 22, 28)
    np.testing.assert_allclose(stack.images.mean((0, 2, 3, 4)), [0.2, 0.4, 0.6], atol=2e-3)
    assert stack.focus_distances_m.tolist() == [[1.0, 2.0, float("inf")]]
    assert (float(stack.near_m), float(stack.far_m)) == (0.5, 9.0) and stack.name == ("my stack",)


def test_files_units_and_overrides(recorded):
    rewrite(recorded, files=["c.png", "a.png"], focus_distances_m=[100, 200], focus_distance_unit_m=0.0254)
    stack = read_stack(recorded, {"near_m": 1.0, "far_m": None, "camera": {"f_number": 4.0, "focal_length_m": None}})
    np.testing.assert_allclose(stack.images.mean((0, 2, 3, 4)), [0.6, 0.2], atol=2e-3)
    assert stack.focus_distances_m.tolist()[0] == pytest.approx([2.54, 5.08])
    assert float(stack.near_m) == 1.0 and stack.camera[0].f_number == 4.0


@pytest.mark.parametrize(("changes", "message"), [
    ({"focus_distances_m": [1.0, 2.0]}, "expected 3 focus distances.*got 2"),
    ({"focus_distances_m": [1.0, 2.0, 0.02]}, "inside the focal length"),
    ({"focus_distances_m": [1.0, 2.0, float("nan")]}, "positive number"),
    ({"focus_distances_m": [1.0, 2.0, "far"]}, "positive number, got 'far'"),
    ({"focus_distances_m": None}, "focus_distances_m is missing"),
    ({"camera": {"focal_length_m": 0.05, "f_number": 8.0}}, "camera.pixel_pitch_m is missing"),
    ({"camera": {"focal_length_m": 0.05, "f_number": -8.0, "pixel_pitch_m": 1e-5}}, "camera.f_number"),
    ({"camera": {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1e-5, "lens": 1}}, "unknown key 'lens'"),
    ({"near": 0.5}, "unknown key 'near'"), ({"near_m": 12.0}, "near_m < far_m"),
    ({"crop": [0, 0, 30, 0]}, "leaves less than"), ({"crop": [0, 0]}, "crop"), ({"files": ["a.png", "x.png"]}, "x.png"),
])  # fmt: skip
def test_a_wrong_description_names_file_and_key(recorded, changes, message):
    rewrite(recorded, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_stack(recorded)
    assert "stack.yaml" in str(caught.value) or "my stack" in str(caught.value)


def test_broken_folders_are_refused(recorded, tmp_path):
    for content in ("", "- 1", "camera: [", "\x00"):
        (recorded / "stack.yaml").write_text(content)
        with pytest.raises(InputError, match=r"stack\.yaml"):
            read_stack(recorded)
    with pytest.raises(InputError, match="no such folder"):
        read_stack(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="two or more slices"):
        read_stack(tmp_path / "empty")


def test_mixed_sizes_and_truncated_files_are_named(recorded):
    whole = (recorded / "b.png").read_bytes()
    (recorded / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b\.png"):
        read_stack(recorded)
    write_image(recorded / "b.png", torch.rand(3, 24, 30))
    with pytest.raises(InputError, match=r"b\.png: 30 x 24 pixels, but a\.png has 32 x 24"):
        read_stack(recorded)


def test_recorded_folders_make_a_data_module(recorded):
    module = RecordedDataModule(root=str(recorded.parent), camera={"f_number": None})
    assert len(module.dataset("all")) == 1 and module.dataset("all")[0].depth_m is None


@pytest.mark.parametrize(("array", "expected"), [
    (np.full((9, 9), 128, np.uint8), 128 / 255), (np.full((9, 9), 30000, np.uint16), 30000 / 65535),
    (np.full((9, 9, 4), 64, np.uint8), 64 / 255), (np.full((9, 9, 3), 200, np.uint8), 200 / 255),
])  # fmt: skip
def test_grey_alpha_and_16_bit_images(tmp_path, array, expected):
    iio.imwrite(tmp_path / "a.png", array)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 9, 9)
    torch.testing.assert_close(image, torch.full((3, 9, 9), expected), atol=1e-6, rtol=0)


# ---------------------------------------------------------------- batches


def test_collate_pads_short_stacks_and_indexing_takes_the_padding_off():
    def stack(slices):
        return FocalStack.single(torch.rand(slices, 3, 8, 8), list(range(1, slices + 1)), CAMERA, 0.5, 10.0)

    parts = [stack(2), stack(4)]
    batch = FocalStack.collate(parts)
    assert batch.images.shape == (2, 4, 3, 8, 8) and batch.slice_mask.tolist() == [[True] * 2 + [False] * 2, [True] * 4]
    for index, part in enumerate(parts):
        assert torch.equal(batch[index].images, part.images)
        assert torch.equal(batch[index].focus_distances_m, part.focus_distances_m)


def sized(height, width, slices=3):
    generator = torch.Generator().manual_seed(height * width)
    return FocalStack.single(
        torch.rand(slices, 3, height, width, generator=generator), list(range(1, slices + 1)), CAMERA, 0.5, 10.0,
        depth_m=1 + torch.rand(height, width, generator=generator), aif=torch.rand(3, height, width, generator=generator),
        valid=torch.rand(height, width, generator=generator) > 0.2,
    )  # fmt: skip


def test_images_of_several_sizes_stand_in_one_batch():
    stacks = [sized(8, 12), sized(10, 9, slices=2), sized(8, 12)]
    batch = FocalStack.collate(stacks)
    assert batch.images.shape == (3, 3, 3, 10, 12) and batch.size_px == ((8, 12), (10, 9), (8, 12))
    assert not batch.valid[0, 8:].any() and not batch.valid[1, :, 9:].any()
    parts = batch.parts()
    assert [indices for indices, _ in parts] == [[0, 2], [1]]
    for index, stack in enumerate(stacks):
        for key in ("images", "depth_m", "aif", "valid", "focus_distances_m"):
            assert torch.equal(getattr(batch[index], key), getattr(stack, key)), key
    again = FocalStack.collate([batch, sized(4, 16)])
    assert again.images.shape == (4, 3, 3, 10, 16) and torch.equal(again[1].aif, stacks[1].aif)


# ---------------------------------------------------------------- sparse stacks, sensor, cache


class Stacks(torch.utils.data.Dataset):
    def __init__(self, stack, length=4):
        self.stack, self.length = stack, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.stack

    def identity(self, index):
        return [index]


def test_sparse_stacks_are_seeded_subsets():
    stack = sized(8, 8, slices=7)
    for choice in ("random", "even"):
        sparse = _Sparse(Stacks(stack, 9), 3, choice, seed=1)
        picks = [tuple(sparse[i].focus_distances_m[0].tolist()) for i in range(9)]
        assert picks == [tuple(sparse[i].focus_distances_m[0].tolist()) for i in range(9)]
        assert all(len(set(pick)) == 3 and pick == tuple(sorted(pick)) for pick in picks)
        assert (len(set(picks)) > 2) == (choice == "random")
    other = _Sparse(Stacks(stack, 9), 3, "random", seed=2)
    assert picks != [tuple(other[i].focus_distances_m[0].tolist()) for i in range(9)]
    torch.manual_seed(0)
    drawn = _Sparse(Stacks(stack), 3, "random", seed=None)
    assert len({tuple(drawn[0].focus_distances_m[0].tolist()) for _ in range(20)}) > 4
    assert _Sparse(Stacks(sized(8, 8, slices=2)), 3, "even", 0)[0].images.shape[1] == 2


def test_even_choices_are_spread_in_inverse_distance():
    assert evenly_spread(torch.tensor([1.0, 1.5, 2.5, 4.0, 6.0]), 3) == [0, 1, 4]  # 1, .67 of (1, .58, .17)
    assert evenly_spread(torch.tensor([6.0, 4.0, 2.5, 1.5, 1.0]), 2) == [0, 4]
    assert evenly_spread(torch.tensor([1.0, 2.0, float("inf")]), 3) == [0, 1, 2]
    for number in range(2, 8):
        assert len(set(evenly_spread(torch.tensor([1, 1.01, 1.02, 1.03, 5, 6, 7.0]), number))) == number


def test_sensor_noise_has_the_asked_variance_and_the_default_does_nothing():
    images = torch.full((2, 3, 64, 64), 0.36)
    assert SensorModel()(images, torch.Generator()) is images
    noisy = SensorModel(read_std=0.01, full_well=900.0)(images, torch.Generator().manual_seed(0))
    assert float(noisy.std()) == pytest.approx((0.01**2 + 0.36 / 900) ** 0.5, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(0.36, abs=1e-3)
    lit = SensorModel(exposure_std=0.05)(images.expand(2, 3, 64, 64), torch.Generator().manual_seed(1))
    assert lit[0].std() < 1e-6 and lit[0, 0, 0, 0] != lit[1, 0, 0, 0]


def test_misalignment_moves_slices_by_the_asked_amount():
    x = torch.linspace(0, 1, 96)[None, None, None].expand(200, 3, 32, 96)
    moved = SensorModel(shift_px=0.5)(x, torch.Generator().manual_seed(0))
    shift = (moved - x)[:, 0, 16, 48] * 95  # the ramp rises by 1/95 a pixel
    assert float(shift.std()) == pytest.approx(0.5, rel=0.15) and abs(float(shift.mean())) < 0.15


@pytest.mark.parametrize("options", [{"read_std": -1}, {"full_well": 0}, {"shift_px": float("nan")}])
def test_impossible_sensors_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SensorModel(**options)


def test_the_cache_keeps_stacks_and_a_changed_camera_reads_nothing_old(rgbd, tmp_path):
    def module(camera=CAMERA, **options):
        return RGBDDataModule(
            str(rgbd), renderer=RENDERER, camera=camera, focus_distances_m=FOCUS_M, near_m=0.5, far_m=10.0,
            cache=str(tmp_path / "cache"), in_memory=False, **options,
        )  # fmt: skip

    def files():
        return sorted((tmp_path / "cache").rglob("*.safetensors"))

    first = module().dataset("all")[0]
    assert len(files()) == 1
    again = module().dataset("all")[0]
    for key in ("images", "depth_m", "aif", "valid", "focus_distances_m", "near_m", "slice_mask"):
        assert torch.equal(getattr(first, key), getattr(again, key)), key
    assert again.camera == first.camera and again.name == first.name and len(files()) == 1
    changed = module(replace(CAMERA, f_number=4.0)).dataset("all")[0]
    assert len(files()) == 2 and not torch.equal(changed.images, first.images)
    module(sensor=SensorModel(read_std=0.01)).dataset("all")[0]
    module(resize=0.5).dataset("all")[0]
    assert len(files()) == 4
    depth = sorted((rgbd / "depth").iterdir())[0]
    os.utime(depth, ns=(1, 1))  # another file of the same name
    module().dataset("all")[0]
    assert len(files()) == 5
    module().dataset("all").path(0).write_bytes(b"broken")
    with pytest.raises(InputError, match="broken file in the cache"):
        module().dataset("all")[0]


def test_photographs_are_cropped_to_what_all_slices_show():
    covered = np.ones((20, 30), bool)
    covered[:2] = covered[:, 27:] = False
    covered[19, :5] = False
    assert common_rectangle(covered) == (2, 19, 0, 27)


def test_real_breakfast_lies_between_its_focus_distances(real_data):
    from sfdfd.classical import depth_from_focus

    stack = read_stack(real_data / "stacks" / "breakfast")
    depth, _ = depth_from_focus(stack.images, stack.focus_distances_m, stack.near_m, stack.far_m)
    assert float(depth.min()) >= 0.5 and float(depth.max()) <= 0.9
