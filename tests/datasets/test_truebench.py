"""Truebench: the same everywhere, from seeds; its masks; its assets; later editions held back."""

import numpy as np
import pytest
import torch

from sfdfd.datasets import truebench_generator
from sfdfd.datasets.stack_folders import read_stack
from sfdfd.datasets.truebench_generator import (
    REFERENCE,
    TruebenchGenerator,
    compare_with_reference,
    seed_words,
    thumbnails,
    write_reference,
)  # fmt: skip
from sfdfd.errors import InputError
from sfdfd.measures.regions import occluded, plain
from sfdfd.optics.camera import Camera
from sfdfd.scenes.truebench import CAMERA_CLASSES, class_setup, truebench_scene
from sfdfd.scenes.truebench_surfaces import ASSETS, PhotoTexture, asset_names, load_mesh
from tests.commands import inside, one_line

SMALL = {"scenes_per_class": 1, "height": 40, "width": 60, "samples": 4, "variant": "scalar_rgb"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("mitsuba")
    root = tmp_path_factory.mktemp("made") / "set"
    TruebenchGenerator(**SMALL).write(root, {}, lambda done, total: None)
    return root


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_bytes_with_any_number_of_threads(made, tmp_path):
    drjit = pytest.importorskip("drjit")
    generator, before = TruebenchGenerator(**SMALL), drjit.thread_count()
    planned = generator.planned()[1]
    try:
        for threads in (1, 3):
            drjit.set_thread_count(threads)
            generator.write_scene(planned, tmp_path / str(threads), 4, "scalar_rgb")
    finally:
        drjit.set_thread_count(before)
    one, three = files(tmp_path / "1"), files(tmp_path / "3")
    assert one == three and len(one) == 10
    assert all(content == (made / path).read_bytes() for path, content in one.items())


def test_scenes_are_seeded_by_edition_class_and_number_alone():
    first = truebench_scene(seed_words(2026), "phone", 0, 24, 32)
    again, dev = (
        truebench_scene(seed_words(2026), "phone", 0, 24, 32),
        truebench_scene(seed_words("dev"), "phone", 0, 24, 32),
    )
    assert all(np.array_equal(a.radiance, b.radiance) for a, b in zip(first.patches, again.patches, strict=True))
    other = [patch.vertices_m.shape for patch in dev.patches]
    assert other != [patch.vertices_m.shape for patch in first.patches]


def test_later_editions_need_the_randomness_of_their_year():
    beacon = "00" * 31 + "01"
    assert len({seed_words(2026), seed_words("dev"), seed_words(2027, beacon), seed_words(2028, beacon)}) == 4
    for edition, text, message in (
        (2027, None, "held back"), (2027, "xyz", "hexadecimal"), (2027, "ab", "at least 32"), (2025, None, "2026 or more"),
        (2026, beacon, "has no beacon"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            seed_words(edition, text)


def test_a_stack_has_five_slices_exact_depth_and_its_masks(made):
    import imageio.v3 as iio

    assert sorted(path.name for path in made.iterdir() if path.is_dir() and path.name != "splits") == [
        "dslr_00", "macro_00", "phone_00",
    ]  # fmt: skip
    for name in CAMERA_CLASSES:
        folder = made / f"{name}_00"
        stack = read_stack(folder)
        assert stack.images.shape == (1, 5, 3, 40, 60) and bool(stack.valid.all())
        masks = {"occluded": occluded(stack.depth_m, stack.camera[0]), "plain": plain(stack.aif)}
        for mask, expected in masks.items():
            assert np.array_equal(iio.imread(folder / "truth" / f"{mask}.png") > 0, expected[0].numpy())


def test_a_pixel_is_occluded_where_a_nearer_one_hides_a_part_of_the_aperture():
    rng = np.random.default_rng(0)
    depth_m = torch.from_numpy(rng.choice([0.8, 1.0, 3.0], (1, 14, 17))).float()
    camera = Camera(0.05, 2.0, 2e-4)
    factor = 0.05**2 / (2 * 2.0 * 2e-4)
    found = occluded(depth_m, camera)[0].numpy()
    y, x = np.mgrid[0:14, 0:17]
    for i in range(14):
        for j in range(17):
            reach = factor * (1 / depth_m[0].numpy() - 1 / float(depth_m[0, i, j]))
            distance = np.hypot(y - i, x - j)
            assert found[i, j] == bool(((reach > distance) & (distance > 0)).any())
    assert not occluded(torch.full((1, 8, 8), 2.0), camera).any()


def test_a_set_equals_its_reference_within_noise_and_differs_beyond_it(made, tmp_path, monkeypatch):
    path = tmp_path / "reference.npz"
    monkeypatch.setattr(truebench_generator, "REFERENCE", path)
    write_reference(made, path)
    truebench_generator._reference.cache_clear()
    assert compare_with_reference(made)["matches"]
    depth = made / "dslr_00" / "truth" / "depth_m.npy"
    before = np.load(depth)
    try:
        np.save(depth, before * np.float32(1.01))
        found = compare_with_reference(made)
        assert found["different"] == ["dslr_00"] and found["inverse_depth"] == pytest.approx(0.0099, abs=1e-3)
    finally:
        np.save(depth, before)
        truebench_generator._reference.cache_clear()


def test_the_reference_in_the_package_is_of_the_editions_scenes():
    with np.load(REFERENCE) as content:
        names = {key.split("/")[0] for key in content}
        assert names <= {scene.name for scene in TruebenchGenerator().planned()} and len(names) >= 18
        assert content["dslr_00/images"].shape == (6, 12, 16, 3)


def test_thumbnails_are_means_of_squares(made):
    images, inverse = thumbnails(made / "macro_00")
    depth_m = np.load(made / "macro_00" / "truth" / "depth_m.npy")
    assert images.shape == (6, 2, 3, 3) and inverse[1, 2] == pytest.approx((1 / depth_m[20:, 40:].astype(float)).mean())


def test_the_cameras_of_a_class_take_turns():
    for name, camera_class in CAMERA_CLASSES.items():
        setups = [class_setup(name, index, 320) for index in range(10)]
        assert len({setup.camera for setup in setups}) == len(camera_class.lenses)
        assert all(len(s.focus_distances_m) == 5 and s.near_m < min(s.focus_distances_m) for s in setups)
        assert all(max(s.focus_distances_m) < s.far_m for s in setups)


def test_every_asset_has_its_author_and_a_free_licence_and_all_are_small():
    listed = (ASSETS / "ATTRIBUTION.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in listed.splitlines() if line.startswith("| ")}
    for path in ASSETS.rglob("*.*"):
        if path.suffix in (".jpg", ".npz"):
            row = rows[path.relative_to(ASSETS).as_posix()]
            assert "CC0" in row or "public domain" in row.lower()
    assert sum(path.stat().st_size for path in ASSETS.rglob("*.*")) < 3e6


def test_meshes_have_unit_size_and_both_sides():
    for name in asset_names("mesh"):
        mesh = load_mesh(name)
        assert mesh.extent.max() == pytest.approx(1, abs=0.01) and 0.01 < mesh.size_m < 4
        assert mesh.faces.max() < len(mesh.vertices_m) and len(mesh.faces) % 2 == 0


def test_a_photograph_repeats_by_reflection_or_covers_a_surface_once():
    name = asset_names("material")[0]
    common = {"kind": "material", "palette": np.zeros((3, 3)), "gain": 0.5, "contrast": 1.0, "salt": 0, "name": name}
    texture = PhotoTexture(scale_m=0.01, **common)
    height = 448
    v = (np.arange(3 * height) + 0.0) * 0.01
    baked = texture.bake(np.arange(4) * 0.01, v, 0.01)
    assert np.allclose(baked[height : 2 * height], baked[:height][::-1]) and baked.shape == (3 * height, 4, 3)
    whole = PhotoTexture(scale_m=0.01, whole=True, **common).bake(np.linspace(0, 2, 50), np.linspace(0, 2, 50), 0.04)
    assert whole.min() >= 0.01 and whole.max() <= 0.95 and whole.std() > 0.01


def test_prepare_makes_the_set_and_refuses_a_held_back_one(tmp_path):
    pytest.importorskip("mitsuba")
    small = ["data.scenes=1", "data.height=36", "data.width=48", "data.samples=2", "data.variant=scalar_rgb"]
    done = inside("prepare", "data=truebench", "data.root=set", *small, cwd=tmp_path)
    assert "3 samples of truebench" in done.stdout
    assert "already there" in inside("prepare", "data=truebench", "data.root=set", *small, cwd=tmp_path).stdout
    done = inside("prepare", "data=truebench", "data.root=x", "data.edition=2027", *small, cwd=tmp_path, expect=2)
    assert "held back" in one_line(done.stderr)
