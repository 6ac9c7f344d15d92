"""Prepared stacks and their descriptions."""

import numpy as np
import pytest
import torch
import yaml

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.errors import InputError
from sfdfd.io.images import write_image


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
    for content in ("1", "- 1", "camera: [", "\x00"):
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
    write_image(recorded / "b.png", torch.rand(3, 24, 28))
    with pytest.raises(InputError, match=r"b\.png: 28 x 24 pixels, but a\.png has 32 x 24"):
        read_stack(recorded)


def test_recorded_folders_make_a_data_module(recorded):
    module = StacksDataModule(root=str(recorded.parent), camera={"f_number": None})
    assert len(module.dataset("all")) == 1 and module.dataset("all")[0].depth_m is None


def test_real_breakfast_lies_between_its_focus_distances(real_data):
    from sfdfd.networks.classical import depth_from_focus

    stack = read_stack(real_data / "stacks" / "breakfast")
    depth, _ = depth_from_focus(stack.images, stack.focus_distances_m, stack.near_m, stack.far_m)
    assert float(depth.min()) >= 0.5 and float(depth.max()) <= 0.9
